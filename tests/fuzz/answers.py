"""Answers of an OpenAI that is broken in every way that a seed can choose: whole HTTP responses."""

import copy
import gzip
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.providers.openai.upstream import payload

WIDTHS = {"1m": 60, "1h": 3600, "1d": 86400}
ODD_VALUES: Sequence[Any] = (
    None, True, False, 0, -1, 0.5, 1e300, 10**16, 10**16 + 1, 2**63, 10**40, "", "x", "5", "\ud83d", "caf\u00e9", "a\x00b", "x" * 5000,
    [], {}, [[]], [None], {"a": 1}, [1, 2], {"id": None}, {"value": "NaN"}, "NaN", "1e999999", "Infinity", "-0",
)  # fmt: skip
ODD_STATUSES = (100, 201, 204, 206, 301, 302, 304, 307, 400, 401, 402, 403, 404, 407, 408, 409, 410, 418, 425, 429, 451, 500, 502, 503, 504,
                520, 599, 600, 999)  # fmt: skip
ODD_HEADERS = (
    "X-Long: " + "x" * 9000, "X-Longer: " + "x" * 70_000, "Content-Type: text/html", "Content-Type: ;;;", "Retry-After: 1e9",
    "Retry-After: Thu, 99 Foo 2026 99:99:99 GMT", "Retry-After: -5", "retry-after-ms: 99999999999999999999", "Content-Encoding: gzip",
    "Content-Encoding: br", "Content-Encoding: deflate", "Location: /v1/again", "Set-Cookie: a=b; Domain=..", "X-Bytes: \xff\xfe",
    "Transfer-Encoding: chunked", "Content-Length: -1", "Content-Length: 999999", "Date: yesterday", "no colon at all",
)  # fmt: skip


@dataclass(slots=True)
class Answer:
    """One response: its bytes, the name that its rows carry, and whether nothing of it may count."""

    raw: bytes
    mark: str
    is_bad: bool


@dataclass(slots=True)
class Fuzzer:
    """Makes answers, each with a mark of its own in its rows."""

    seed: int
    made: list[Answer] = field(default_factory=list)

    def answer(self, path: str, query: Mapping[str, Sequence[str]]) -> Answer:
        """The next answer to a request, by the seed and how many were made before."""
        rng = random.Random(f"{self.seed}/{len(self.made)}")
        mark = f"fuzz-{len(self.made)}"
        tree = good(path, query, mark)
        for _ in range(rng.choice((0, 1, 1, 1, 2, 5))):
            tree = _mutated(tree, rng)
        body = _written(tree, rng)
        status = 200
        headers: list[str] = ["Content-Type: application/json"]
        packed = rng.random() < 0.1
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            body = rng.choice(BODIES)(body, rng)
        is_bad = not is_good(path, query, body)
        if packed:
            body = gzip.compress(body)
            headers.append("Content-Encoding: gzip")
            if rng.random() < 0.3:
                body = body[: rng.randrange(len(body))]
                is_bad = True
        if rng.random() < 0.15:
            status = rng.choice(ODD_STATUSES)
            is_bad = is_bad or not 200 <= status < 300
        if rng.random() < 0.15:
            headers.append(rng.choice(ODD_HEADERS))
        length = len(body)
        if rng.random() < 0.05:
            length += rng.choice((-1, 1, 100))
            is_bad = is_bad or length > len(body)
        head = "\r\n".join(
            [f"HTTP/1.1 {status} Odd", *headers, f"Content-Length: {max(0, length)}", "", ""]
        )
        made = Answer(head.encode("latin-1") + body, mark, is_bad)
        self.made.append(made)
        return made


def good(path: str, query: Mapping[str, Sequence[str]], mark: str) -> Any:
    """What a sound OpenAI would say."""
    name = path.rsplit("/", 1)[-1]
    if "/usage/" in path or name == "costs":
        tree = copy.deepcopy(payload(name))
        start = int(query["start_time"][0])
        width = WIDTHS[query["bucket_width"][0]]
        bucket = tree["data"][0]
        (result,) = bucket["results"]
        result["model" if name != "costs" else "line_item"] = mark
        tree["data"] = [
            {**copy.deepcopy(bucket), "start_time": start + n * width} for n in range(3)
        ]
        tree["has_more"] = False
        tree["next_page"] = None
        return tree
    if name == "spend_limit":
        return {"threshold_amount": 10_000, "currency": "USD", "enforcement": {"status": "active"}}
    kind = {"projects": "projects", "users": "users", "api_keys": "api_keys"}.get(name, "project")
    return copy.deepcopy(payload(kind))


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON tree."""
    found: list[tuple[Any, Any]] = []
    items: Any = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        found.append((tree, key))
        if isinstance(value, dict | list):
            found += _places(value)
    return found


def _mutated(tree: Any, rng: random.Random) -> Any:
    if not isinstance(tree, dict | list) or rng.random() < 0.03:
        return copy.deepcopy(rng.choice(ODD_VALUES))
    places = _places(tree)
    if not places:
        return tree
    container, key = rng.choice(places)
    match rng.randrange(5):
        case 0:
            del container[key]
        case 1 if isinstance(container, list):
            container.insert(key, copy.deepcopy(rng.choice(ODD_VALUES)))
        case 2 if isinstance(container, list):
            container += [copy.deepcopy(container[key]) for _ in range(rng.choice((1, 50)))]
        case 3 if isinstance(container, dict):
            container[rng.choice(("extra", "id", "results", "data", "has_more"))] = rng.choice(
                ODD_VALUES
            )
        case _:
            container[key] = copy.deepcopy(rng.choice(ODD_VALUES))
    return tree


def _written(tree: Any, rng: random.Random) -> bytes:
    is_ascii = rng.random() < 0.5
    return json.dumps(tree, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")


def _truncated(body: bytes, rng: random.Random) -> bytes:
    return body[: rng.randrange(len(body) + 1)]


def _flipped(body: bytes, rng: random.Random) -> bytes:
    if not body:
        return body
    place = rng.randrange(len(body))
    return body[:place] + rng.randbytes(1) + body[place + 1 :]


def _twice(body: bytes, rng: random.Random) -> bytes:
    """A key that comes twice; parsers take the last one."""
    return body.replace(b'"results":', b'"results":[],"results":', rng.choice((1, -1)))


BODIES: Sequence[Callable[[bytes, random.Random], bytes]] = (
    _truncated,
    _flipped,
    _twice,
    lambda body, rng: b"\xef\xbb\xbf" + body,
    lambda body, rng: body.decode("utf-8", "replace").encode("utf-16"),
    lambda body, rng: body.replace(b"1000", rng.choice((b"NaN", b"1e400", b"-0", b"01", b"1.0"))),
    lambda body, rng: b"<html>" + body,
    lambda body, rng: body + body,
    lambda body, rng: b"",
    lambda body, rng: b"[" * rng.choice((10, 100_000)) + body,
    lambda body, rng: b'{"a":' * rng.choice((10, 50_000)) + body + b"}",
    lambda body, rng: body.replace(b'"', b"'"),
    lambda body, rng: rng.randbytes(200),
    lambda body, rng: b" " * 100_000 + body,
    lambda body, rng: b"{" + b'"k":[],' * 50_000 + body[1:],
    lambda body, rng: gzip.compress(b" " * rng.choice((1000, 5_000_000))),
)


def is_good(path: str, query: Mapping[str, Sequence[str]], body: bytes) -> bool:
    """Whether the counts of a body of usage can be read, by Python's own parser. Other bodies have
    none, and a bucket outside the window that was asked for is not looked at.
    """
    if "/usage/" not in path:
        return True
    try:
        page = json.loads(body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace"))
        start, end = (int(query[name][0]) for name in ("start_time", "end_time"))
        asked_for = [bucket for bucket in page["data"] if start <= bucket["start_time"] < end]
        return all(_counts(result) for bucket in asked_for for result in bucket["results"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _counts(result: Any) -> bool:
    if not result:
        return result in (None, [], {})
    needed = ("input_tokens", "output_tokens", "num_model_requests")
    return isinstance(result, dict) and all(_is_count(result.get(name)) for name in needed)


def _is_count(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value <= 10**16 and value == int(value)
