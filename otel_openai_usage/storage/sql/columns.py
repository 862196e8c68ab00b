"""The columns that today's endpoints need. A store adds those that it lacks after its migrations."""

from collections.abc import Mapping
from decimal import Decimal

from otel_openai_usage.domain.endpoints import STORED
from otel_openai_usage.domain.metered import METERED


def needed_columns() -> Mapping[str, Mapping[str, type]]:
    """Table → column → the type of its values: `Decimal` (money), `int` or `str`."""
    measures: dict[str, type] = {}
    dimensions: dict[str, type] = {}
    for endpoint in (*STORED.values(), METERED):
        for measure in endpoint.measures:
            measures[measure.name] = Decimal if measure.money else int
        for dimension in endpoint.group_by + endpoint.derived:
            dimensions[dimension] = str
    return {"readings": measures, "dims": dimensions}
