"""What was used and spent, by hour or day and by any dimension. Reads only; the exporter may be writing meanwhile.

    with history(path) as past:
        past.usage(start, end, step="day", by=("model",), where={"project_id": ["proj_a"]})
        past.costs(start, end, step="day", by=("project_id", "line_item"))

Times are Unix seconds, whole hours or UTC days. Sums are exact; money is Decimal.
"""

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Context, Decimal
from pathlib import Path
from typing import Any, Literal, TypeAlias

from otel_openai_usage.core.kinds import COSTS, LEGACY, STORED, Kind
from otel_openai_usage.core.model import Limit, Names, Width
from otel_openai_usage.state.file import looking, told

Step: TypeAlias = Literal["hour", "day"] | None
"""The width of the answer's buckets; None is one sum over the whole range."""
Where: TypeAlias = Mapping[str, Collection[str | None]]
"""Only rows whose dimension has one of these values; None stands for null."""

_Key: TypeAlias = tuple[int | None, tuple[str | None, ...]]
_MONEY = ("cost", "quantity", "estimate")
_EXACT = Context(prec=120)

USAGE_DIMENSIONS = ("organization", "operation", "project_id", "api_key_id", "user_id", "model", "batch", "service_tier", "organization_id")
"""What usage can be grouped and filtered by."""
COST_DIMENSIONS = ("organization", "project_id", "line_item", "api_key_id", "user_id")
"""What costs can be grouped and filtered by."""


@dataclass(frozen=True, slots=True)
class Used:
    """What one group used in one bucket. `group` has the values of `by`, in its order; `start` is None for a whole range.

    `input_*` and `output_audio` are parts of `input` and `output`. `estimate` is the estimated cost in US dollars, None if
    nothing was priced; `unpriced` are the tokens that have no price, and so are missing in it. Of an operation that does
    not count requests (file searches, sessions) `requests` is 0.
    """

    start: int | None
    group: tuple[str | None, ...]
    requests: int = 0
    input: int = 0
    output: int = 0
    input_cached: int = 0
    input_audio: int = 0
    output_audio: int = 0
    input_cache_write: int = 0
    images: int = 0
    characters: int = 0
    audio: int = 0
    sessions: int = 0
    searches: int = 0
    estimate: Decimal | None = None
    unpriced: int = 0


@dataclass(frozen=True, slots=True)
class Spent:
    """What OpenAI billed one group on one day. `quantity` is as OpenAI counts the line item, None where it says nothing."""

    start: int | None
    group: tuple[str | None, ...]
    currency: str
    cost: Decimal
    quantity: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """A source in the store. `epoch` is when its counting began; `first` and `last` span its rows, None without any."""

    organization: str
    kind: Kind
    epoch: int
    first: int | None
    last: int | None
    last_success: int | None
    organization_id: str | None
    id: int


class History:
    """Made by `history`. Every method raises StateError."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db, self._path = db, path

    def origins(self) -> list[Origin]:
        """Every source in the store: what there is to ask for, and how fresh it is."""
        sql = (
            "SELECT organization, kind, epoch, last_success, organization_id, id,"
            " (SELECT min(m) FROM (SELECT min(start) m FROM readings WHERE source_id = s.id AND width = 60 UNION ALL"
            " SELECT min(start) FROM readings WHERE source_id = s.id AND width = 3600 UNION ALL"
            " SELECT min(start) FROM readings WHERE source_id = s.id AND width = 86400)),"
            " (SELECT max(m) FROM (SELECT max(start) m FROM readings WHERE source_id = s.id AND width = 60 UNION ALL"
            " SELECT max(start) FROM readings WHERE source_id = s.id AND width = 3600 UNION ALL"
            " SELECT max(start) FROM readings WHERE source_id = s.id AND width = 86400)) FROM sources s ORDER BY id"
        )
        return [
            Origin(organization, STORED[kind], epoch, first, last, success, organization_id, id_)
            for organization, kind, epoch, success, organization_id, id_, first, last in self._rows(sql)
            if kind in STORED
        ]

    def usage(
        self, start: int, end: int, *, step: Step = "day", by: Sequence[str] = (), where: Where | None = None, legacy: bool = False
    ) -> list[Used]:
        """What was used in [start, end), one row for each bucket and group that used anything, in order of time.

        `by` and the keys of `where` are of `USAGE_DIMENSIONS`. By the hour there is no estimate.
        With `legacy` it is what the legacy source says, which may be the same tokens: the two are never added.
        """
        origins = [origin for origin in self._origins() if origin.kind is not COSTS and not origin.kind.level]
        found: dict[_Key, dict[str, Any]] = {}
        for origin in (origin for origin in origins if (origin.kind is LEGACY) is legacy):
            for key, _, values in self._grouped(origin, start, end, step, by, where or {}):
                into = found.setdefault(key, {})
                for name, value in values.items():
                    if value is not None:
                        into[name] = into[name] + value if name in into else value
        rows = [Used(*key, **values) for key, values in found.items()]
        return sorted(rows, key=lambda row: (row.start or 0, tuple(value or "" for value in row.group)))

    def costs(
        self, start: int, end: int, *, step: Literal["day"] | None = "day", by: Sequence[str] = (), where: Where | None = None
    ) -> list[Spent]:
        """What OpenAI billed for the UTC days in [start, end), one row for each day, group and currency, in order of time.

        `by` and the keys of `where` are of `COST_DIMENSIONS`.
        """
        found: dict[tuple[int | None, tuple[str | None, ...], str], list[Decimal | None]] = {}
        for origin in self._origins():
            if origin.kind is COSTS:
                for key, currency, values in self._grouped(origin, start, end, step, by, where or {}):
                    into = found.setdefault((*key, currency), [Decimal(0), None])
                    into[0] = (into[0] or 0) + values["cost"]
                    if values["quantity"] is not None:
                        into[1] = (into[1] or 0) + values["quantity"]
        rows = [Spent(at, group, currency, cost or Decimal(0), quantity) for (at, group, currency), (cost, quantity) in found.items()]
        return sorted(rows, key=lambda row: (row.start or 0, tuple(value or "" for value in row.group)))

    def values(self, dimension: str, *, legacy: bool = False) -> list[str]:
        """Every value that a dimension of usage or costs has, for lists to choose from."""
        origins = [origin for origin in self._origins() if (origin.kind is LEGACY) is legacy]
        if dimension == "organization":
            return sorted({origin.organization for origin in origins})
        if dimension == "operation" and not legacy:
            return [origin.kind.name for origin in origins if origin.kind is not COSTS]
        ids = ",".join(str(origin.id) for origin in origins if dimension in origin.kind.dimensions)
        sql = f'SELECT DISTINCT "{dimension}" FROM dims WHERE source_id IN ({ids}) AND "{dimension}" IS NOT NULL ORDER BY 1'
        return [value for (value,) in self._rows(sql)] if ids else []

    def names(self, organization: str | None = None) -> Names:
        """Names of projects, API keys and users; of all organizations without one."""
        found: dict[str, dict[str, str | None]] = {"project": {}, "api_key": {}, "user": {}}
        sql = "SELECT what, id, name FROM names WHERE ?1 IS NULL OR organization = ?1"
        for what, id_, name in self._rows(sql, organization):
            found[what][id_] = name
        return Names(found["project"], found["api_key"], found["user"])

    def limits(self) -> list[tuple[str, Limit]]:
        """Monthly spend limits as last read, each with its organization; `project_id` is None for the organization's own."""
        return [
            (organization, Limit(project or None, Decimal(amount), currency, bool(enforcing)))
            for organization, project, amount, currency, enforcing in self._rows(
                "SELECT organization, project_id, amount, currency, enforcing FROM limits ORDER BY organization, project_id"
            )
        ]

    def unpriced(self, start: int, end: int) -> list[tuple[str, str, int]]:
        """Organization, model and tokens of what has no price, most first."""
        rows = self.usage(start, end, step=None, by=("organization", "model"))
        return sorted(((row.group[0] or "", row.group[1] or "", row.unpriced) for row in rows if row.unpriced), key=lambda row: -row[2])

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with told(str(self._path), "read"):
            return self._db.execute(sql, values).fetchall()

    def _origins(self) -> list[Origin]:
        sql = "SELECT organization, kind, epoch, NULL, NULL, last_success, organization_id, id FROM sources ORDER BY id"
        return [Origin(row[0], STORED[row[1]], *row[2:]) for row in self._rows(sql) if row[1] in STORED]

    def _grouped(
        self, origin: Origin, start: int, end: int, step: Step, by: Sequence[str], where: Where
    ) -> Iterator[tuple[_Key, str, dict[str, Any]]]:
        """Sums of one source: (bucket, group), currency, and by column."""
        own = {"organization": origin.organization} | ({} if origin.kind is LEGACY else {"operation": origin.kind.name})
        if any(name in where and value not in where[name] for name, value in own.items()):
            return
        mine = [name for name in by if name not in own]
        sql, values = _question(origin.kind, mine, {name: kept for name, kept in where.items() if name not in own}, step)
        for at, currency, *rest in self._rows(sql, origin.id, start, end, *values):
            dims = iter(rest)
            group = tuple(own[name] if name in own else next(dims) for name in by)
            amounts = dict(zip(_columns(origin.kind), dims, strict=True))
            yield (at if step else None, group), currency, {name: _amount(name, value) for name, value in amounts.items()}


def _columns(kind: Kind) -> list[str]:
    measures = [measure.name for measure in kind.measures]
    return measures if kind is COSTS else [*measures, "estimate", "unpriced"]


def _amount(name: str, value: Any) -> Any:
    return Decimal(value) if name in _MONEY and value is not None else value


def _question(kind: Kind, by: Sequence[str], where: Where, step: Step) -> tuple[str, list[str]]:
    """SQL for (bucket, currency, dimensions …, sums …) of a source and a stretch of time, and the values of its filters."""
    width = int({"hour": Width.HOUR, "day": Width.DAY, None: Width.DAY}[step])
    measures = [measure.name for measure in kind.measures]
    sums = ", ".join(f'{"decimal_sum" if name in _MONEY else "sum"}("{name}") AS "{name}"' for name in measures)
    leaves = (
        f"SELECT dims, start / {width} * {width} AS at, {sums} FROM readings"
        " WHERE source_id = ?1 AND width IN (60, 3600, 86400) AND start >= ?2 AND start < ?3 GROUP BY 1, 2"
    )
    column = {name: f'd."{name}"' if name in kind.dimensions else "NULL" for name in (*by, *where, "currency")}
    picks = ["l.at" if step else "0", f"coalesce({column['currency']}, '')", *(column[name] for name in by)]
    picks += [f'{"decimal_sum" if name in _MONEY else "sum"}(l."{name}")' for name in measures]
    join = ""
    if kind is not COSTS:
        tokens = " + ".join(f'l."{name}"' for name in ("input", "output") if name in measures) or "0"
        picks += ["decimal_sum(e.cost)", f"sum(iif(e.cost IS NULL, {tokens}, 0))"] if step != "hour" else ["NULL", "0"]
        # An estimate is kept by the day only.
        join = " LEFT JOIN estimates e ON e.source_id = ?1 AND e.dims = l.dims AND e.day = l.at" if step != "hour" else ""
    filters, values = "", []
    for name, kept in where.items():
        wanted = [value for value in kept if value is not None]
        null = f" OR {column[name]} IS NULL" if None in kept else ""
        filters += f" AND ({column[name]} IN ({', '.join('?' * len(wanted))}){null})"
        values += wanted
    groups = ", ".join(str(index + 1) for index in range(len(by) + 2))
    return f"SELECT {', '.join(picks)} FROM ({leaves}) l JOIN dims d ON d.id = l.dims{join} WHERE true{filters} GROUP BY {groups}", values


class _Sum:
    """The SQL aggregate `decimal_sum`: exact, NULL of nothing."""

    def __init__(self) -> None:
        self._sum: Decimal | None = None

    def step(self, text: Any, /) -> None:
        if text is not None:
            self._sum = Decimal(text) if self._sum is None else _EXACT.add(self._sum, Decimal(text))

    def finalize(self) -> str | None:
        return None if self._sum is None else str(self._sum)


@contextmanager
def history(path: Path) -> Iterator[History]:
    """The History of the state at `path`. Raises StateError, also when there is none, or when it is older than this program."""
    with looking(path) as db:
        db.create_aggregate("decimal_sum", 1, _Sum)  # type: ignore[arg-type]  # typeshed wants an int to add up
        yield History(db, path)
