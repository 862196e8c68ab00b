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
    """The rows of the endpoint `metered` for a window."""
    endpoint = USAGE_ENDPOINTS["completions"]
    names = {project.id: project.name for project in world.company.projects}
    found: dict[Dims, Amounts] = {}
    measures = [measure.name for measure in endpoint.measures]
    totals = world.totals(endpoint.name, window, ("project_id", "model"))
    for dims, amounts in totals.items():
        named = dict(zip(endpoint.dimensions, dims, strict=True))
        used = dict(zip(measures, map(int, amounts), strict=True))
        model = named["model"]
        project = names.get(str(named["project_id"]), "")
        reported = _REPORTED.get(project, 0)
        for place, share in enumerate(_SHARES):
            # Two shares of a hundred: of ten thousand together.
            part = share * reported
            given = used["input"] * part // 10_000
            made = used["output"] * part // 10_000
            cached = used["input_cached"] * part // 10_000
            requests = used["requests"] * part // 10_000
            if not requests:
                continue
            # OpenAI's usage has no reasoning tokens, but responses report them: here a quarter.
            amounts_of_row = (given, made, cached, made // 4, requests)
            customer = _customer(world.seed, window.start, model, place)
            row: Dims = (customer, model, None, None)
            before = found.get(row, METERED.zero)
            found[row] = total(before, amounts_of_row)
    return found


def _customer(seed: int, *of: object) -> str:
    """Some customers come more often than others."""
    at = draw(seed, "customer", *of) / 2**64
    # Squaring a number below 1 favours the first customers of the list.
    place = int(at * at * len(_CUSTOMERS))
    return _CUSTOMERS[place]
