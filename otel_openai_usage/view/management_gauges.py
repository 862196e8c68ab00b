"""The gauges about keys and rate limits, as rows. Their values do not add up."""

from collections import Counter
from collections.abc import Iterable, Mapping

from otel_openai_usage.domain.model import KeyTimes, Names, RateLimit
from otel_openai_usage.domain.series_marks import Attributes, Key
from otel_openai_usage.view.attributes import AttributePolicy, attribute_key, named
from otel_openai_usage.view.gauges import GaugeRow

RATE_LIMIT = "openai.api.rate_limit"
KEY_CREATED = "openai.api.key_created"
KEY_LAST_USED = "openai.api.key_last_used"
KEY_EXPIRES = "openai.api.key_expires"
INSTRUMENTS = (RATE_LIMIT, KEY_CREATED, KEY_LAST_USED, KEY_EXPIRES)


def rate_limits(
    organization: str, limits: Iterable[RateLimit], names: Names, policy: AttributePolicy
) -> list[GaugeRow]:
    """Return the rows of rate_limit."""
    rows: list[GaugeRow] = []
    for limit in limits:
        raw: Attributes = {"organization": organization, "project_id": limit.project_id}
        raw = {**named(raw, names), "model": limit.model, "limit": limit.limit}
        rows.append((policy.attributes(raw), limit.value))
    return rows


def key_times(
    organization: str, keys: Iterable[KeyTimes], names: Names, policy: AttributePolicy
) -> dict[str, list[GaugeRow]]:
    """Return the rows of the times of keys, by instrument. A time that is not known has no row."""
    rows: dict[str, list[GaugeRow]] = {KEY_CREATED: [], KEY_LAST_USED: [], KEY_EXPIRES: []}
    for key in keys:
        raw: Attributes = {
            "organization": organization,
            "project_id": key.project_id,
            "api_key_id": key.api_key_id,
        }
        attributes = policy.attributes(named(raw, names))
        times = (
            (KEY_CREATED, key.created),
            (KEY_LAST_USED, key.last_used),
            (KEY_EXPIRES, key.expires),
        )
        for instrument, time in times:
            if time is not None:
                rows[instrument].append((attributes, float(time)))
    return rows


def alone(rows: Iterable[GaugeRow]) -> tuple[list[GaugeRow], int]:
    """Return the rows that have their attributes to themselves, and how many were left out.

    Rows can have equal attributes because the policy dropped what told them apart. None of them
    stands for the others.
    """
    kept = list(rows)
    counts: Mapping[Key, int] = Counter(attribute_key(attributes) for attributes, _ in kept)
    unique = [row for row in kept if counts[attribute_key(row[0])] == 1]
    return unique, len(kept) - len(unique)
