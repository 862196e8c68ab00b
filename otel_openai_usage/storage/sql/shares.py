"""How much of the usage the metered events explain. Runs inside its caller's transaction."""

from otel_openai_usage.domain.endpoints import USAGE_ENDPOINTS
from otel_openai_usage.domain.metered import METERED, Share
from otel_openai_usage.domain.model import Width
from otel_openai_usage.storage.sql.database import Database


def event_attributes(db: Database) -> list[str]:
    """The attributes of recorded events beyond those of every event, sorted."""
    sql = (
        "SELECT DISTINCT keys.key FROM dims JOIN sources ON sources.id = dims.source_id"
        f" CROSS JOIN {db.json_keys('dims.key')} WHERE sources.kind = ?"
    )
    names = [name for (name,) in db.execute(sql, (METERED.name,))]
    return sorted(name for name in names if name not in METERED.dimensions)


def shares(db: Database, day: int) -> list[Share]:
    """The tokens used on the UTC day that begins at `day`, and those that events explain.

    There is one Share for each organization, model and token type.
    """
    used: dict[tuple[str, str | None], tuple[int, int]] = {}
    explained: dict[tuple[str, str | None], tuple[int, int]] = {}
    sources = db.execute("SELECT id, organization, kind FROM sources").fetchall()
    for source, organization, endpoint in sources:
        if endpoint not in _ENDPOINTS_WITH_TOKENS:
            continue
        sums = explained if endpoint == METERED.name else used
        for model, input_tokens, output_tokens in _tokens_by_model(db, source, day):
            input_before, output_before = sums.get((organization, model), (0, 0))
            total = (input_before + input_tokens, output_before + output_tokens)
            sums[organization, model] = total
    found = []
    for organization, model in dict.fromkeys([*used, *explained]):
        used_tokens = used.get((organization, model), (0, 0))
        explained_tokens = explained.get((organization, model), (0, 0))
        for place, token_type in enumerate(("input", "output")):
            share = Share(
                organization, model, token_type, used_tokens[place], explained_tokens[place]
            )
            found.append(share)
    return found


def _tokens_by_model(db: Database, source: int, day: int) -> list[tuple[str | None, int, int]]:
    """Model, input tokens and output tokens of one source and day."""
    input_sum = db.whole_sum("readings.input")
    output_sum = db.whole_sum("readings.output")
    sql = (
        f"SELECT dims.model, {input_sum}, coalesce({output_sum}, 0)"
        " FROM readings JOIN dims ON dims.id = readings.dims"
        " WHERE readings.source_id = ? AND width IN (60, 3600, 86400)"
        " AND start >= ? AND start < ? GROUP BY dims.model"
    )
    found = db.execute(sql, (source, day, day + Width.DAY)).fetchall()
    # Sums may come as Decimal, or as float beyond 64 bits.
    return [(model, int(inputs), int(outputs)) for model, inputs, outputs in found]


_ENDPOINTS_WITH_TOKENS = {METERED.name} | {
    endpoint.name
    for endpoint in USAGE_ENDPOINTS.values()
    if any(measure.name == "input" for measure in endpoint.measures)
}
