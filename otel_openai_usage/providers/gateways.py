"""What gateways counted: LiteLLM's daily activity, over HTTP or saved, and a CSV of any gateway.

LiteLLM's shape: `GET /user/daily/activity` of its proxy answers {results: [{date, metrics,
breakdown: {models: {NAME: {metrics: {spend, total_tokens, …}}}}}], metadata: {page, has_more}}.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

import aiohttp

from otel_openai_usage.domain.gateway_comparison import Counted
from otel_openai_usage.errors import ConfigError, SourceError

Activity: TypeAlias = dict[tuple[date, str], Counted]

MAX_BYTES = 64 * 1024 * 1024
"""Bytes of one answer, or of a file."""
_TIMEOUT = aiohttp.ClientTimeout(total=60)
_PAGE_SIZE = 1000
_MOST_PAGES = 1000
_COLUMNS = {
    "date": ("date", "day"),
    "model": ("model",),
    "tokens": ("tokens", "total_tokens"),
    "cost": ("cost", "spend", "total_cost"),
}
_PARTS = ("prompt_tokens", "completion_tokens")


async def read_litellm(url: str, key: str | None, since: date, until: date) -> Activity:
    """Read the daily activity of a LiteLLM proxy, both days included. Raises SourceError."""
    found: Activity = {}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    address = f"{url.rstrip('/')}/user/daily/activity"
    async with aiohttp.ClientSession(timeout=_TIMEOUT, headers=headers, trust_env=True) as session:
        for page in range(1, _MOST_PAGES + 1):
            parameters = {
                "start_date": f"{since}",
                "end_date": f"{until}",
                "page": str(page),
                "page_size": str(_PAGE_SIZE),
            }
            document = await _get(session, address, parameters)
            try:
                _add(found, litellm(document))
            except ConfigError as error:
                raise SourceError(f"GET {address}: {error}") from error
            metadata = document.get("metadata") if isinstance(document, dict) else None
            if not (isinstance(metadata, dict) and metadata.get("has_more") is True):
                return found
    raise SourceError(f"GET {address}: more than {_MOST_PAGES} pages")


async def _get(
    session: aiohttp.ClientSession, address: str, parameters: Mapping[str, str]
) -> object:
    try:
        async with session.get(address, params=parameters, allow_redirects=False) as answer:
            body = await answer.content.read(MAX_BYTES + 1)
            while len(body) <= MAX_BYTES and (more := await answer.content.read(MAX_BYTES)):
                body += more
            status = answer.status
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise SourceError(f"GET {address}: {reason}; check the address of the gateway") from error
    if len(body) > MAX_BYTES:
        raise SourceError(f"GET {address}: the answer has more than {MAX_BYTES} bytes")
    if status in (401, 403):
        raise SourceError(
            f"GET {address}: {status}; set LITELLM_API_KEY or --key-file to a key that may read spend"
        )
    if status != 200:
        raise SourceError(f"GET {address}: {status}; the gateway's log says why")
    try:
        return json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"GET {address}: the answer is no JSON; is it a LiteLLM proxy?"
        ) from error


def saved_litellm(text: str, name: str) -> Activity:
    """Read a saved answer. Raises ConfigError."""
    try:
        document = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"{name}: expected JSON as /user/daily/activity answers it"]) from error
    try:
        return litellm(document)
    except ConfigError as error:
        raise ConfigError([f"{name}: {problem}" for problem in error.problems]) from error


def litellm(document: object) -> Activity:
    """Read the models of each day. Raises ConfigError if it has another shape."""
    found: Activity = {}
    try:
        results: Sequence[Any] = document["results"]  # type: ignore[index]
        for result in results:
            day = date.fromisoformat(result["date"])
            for model, entry in result["breakdown"]["models"].items():
                metrics = entry["metrics"]
                tokens = int(metrics["total_tokens"])
                counted = found.setdefault((day, str(model)), Counted())
                counted.add(tokens, _money(metrics.get("spend")))
    except (KeyError, TypeError, ValueError, AttributeError, InvalidOperation) as error:
        raise ConfigError(
            [f"not the shape of LiteLLM's /user/daily/activity that we know: {error!r}"]
        ) from error
    return found


def read_csv(text: str, name: str) -> Activity:
    """Read a CSV with date, model, tokens and cost. Raises ConfigError with every problem.

    Commas or semicolons; `total_tokens`, or `prompt_tokens` and `completion_tokens`, are tokens, too,
    and `spend` is cost, which may be missing.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    head = lines[0] if lines else ""
    delimiter = ";" if head.count(";") > head.count(",") else ","
    reader = csv.DictReader(lines, delimiter=delimiter)
    columns = {column.strip().lower(): column for column in reader.fieldnames or () if column}
    day = _column(columns, "date")
    model = _column(columns, "model")
    tokens = _column(columns, "tokens")
    counted = [tokens] if tokens else [columns[part] for part in _PARTS if part in columns]
    cost = _column(columns, "cost")
    if day is None or model is None or not counted:
        there = ", ".join(columns) or "none"
        raise ConfigError(
            [f"{name}: expected the columns date, model, tokens and cost; there are {there}"]
        )
    found: Activity = {}
    problems = []
    for number, row in enumerate(reader, start=2):
        try:
            key = (date.fromisoformat(row[day].strip()[:10]), row[model].strip())
            amount = sum(_tokens(row[column]) for column in counted)
            money = _money(row[cost].strip() or None) if cost else None
        except (ValueError, TypeError, AttributeError, InvalidOperation) as error:
            problems.append(f"{name}, line {number}: {error}")
            continue
        found.setdefault(key, Counted()).add(amount, money)
    if problems:
        raise ConfigError(problems[:20])
    return found


def _column(columns: Mapping[str, str], wanted: str) -> str | None:
    return next((columns[name] for name in _COLUMNS[wanted] if name in columns), None)


def _tokens(text: str) -> int:
    value = Decimal(text.strip() or "0")
    if value != int(value) or value < 0:
        raise ValueError(f"expected a whole number of tokens, got {text!r}")
    return int(value)


def _money(value: object) -> Decimal | None:
    if value is None:
        return None
    money = Decimal(str(value))
    if not money.is_finite():
        raise ValueError(f"expected an amount of money, got {value!r}")
    return money


def _add(found: Activity, more: Mapping[tuple[date, str], Counted]) -> None:
    """Add a page: a day may be on two."""
    pairs: Iterable[tuple[tuple[date, str], Counted]] = more.items()
    for key, counted in pairs:
        found.setdefault(key, Counted()).add(counted.tokens, counted.cost)
