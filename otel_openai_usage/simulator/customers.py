"""Whom the simulated company serves, and what its applications report of their responses: not all
of them do.
"""

from otel_openai_usage.domain.endpoints import USAGE_ENDPOINTS
from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.model import Amounts, Dims, Window
from otel_openai_usage.domain.reconciliation import total
from otel_openai_usage.simulator.chance import draw
from otel_openai_usage.simulator.world import World

_CUSTOMERS = (
    "Nordwind Logistics", "Atelier Moreau", "Brightwater Health", "Kestrel Insurance", "Hoshino Foods", "Casa Verde",
    "Polaris Travel", "Tansy & Co", "Iron Bridge Steel", "Lumen Schools", "Oakline Furniture", "Redshore Marine",
)  # fmt: skip
_REPORTED = {"Support Copilot": 96, "Search & Recommendations": 71, "Document Intelligence": 34}
"""Of an application's responses, so many in a hundred."""
_SHARES = (55, 30, 15)
"""Of an hour's responses, what each customer of the hour has in a hundred."""


def metered(world: World, window: Window) -> dict[Dims, Amounts]:
    """What events tell of a window, as rows of the endpoint `metered`."""
    endpoint = USAGE_ENDPOINTS["completions"]
    names = {project.id: project.name for project in world.company.projects}
    found: dict[Dims, Amounts] = {}
    for dims, amounts in world.totals(endpoint.name, window, ("project_id", "model")).items():
        named = dict(zip(endpoint.dimensions, dims, strict=True))
        used = {
            each.name: int(amount) for each, amount in zip(endpoint.measures, amounts, strict=True)
        }
        for place, share in enumerate(_SHARES):
            part = share * _REPORTED.get(names.get(str(named["project_id"]), ""), 0)
            given, made, cached, requests = (
                used[name] * part // 10_000
                for name in ("input", "output", "input_cached", "requests")
            )
            if requests:
                row: Dims = (
                    _customer(world.seed, window.start, named["model"], place),
                    named["model"],
                    None,
                    None,
                )
                found[row] = total(
                    found.get(row, METERED.zero), (given, made, cached, made // 4, requests)
                )
    return found


def _customer(seed: int, *of: object) -> str:
    """Some customers come more often than others."""
    at = draw(seed, "customer", *of) / 2**64
    return _CUSTOMERS[int(at * at * len(_CUSTOMERS))]
