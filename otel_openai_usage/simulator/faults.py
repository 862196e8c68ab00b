"""Scripts of trouble: what goes wrong, with which requests, how often. Deterministic for a seeded
`rng`.
"""

import random
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from typing import Final

from otel_openai_usage.domain.model import midnight

ANSWERS: Final = (
    "rate_limit",  # 429, with Retry-After if `retry_after` is set (seconds, or an HTTP date)
    "error",  # `status` (500): an error in OpenAI's envelope
    "html",  # `status` (502): a proxy's page instead of JSON
    "truncated",  # the first half of the right answer, as if that were all
    "cut",  # the first half of the right answer, then the connection breaks
    "disconnect",  # the connection is closed without an answer
    "timeout",  # no answer within `seconds` (3600), then the connection is closed
    "wrong_key",  # 401: the key is not accepted
    "missing_scope",  # `status` (403): the key lacks the scope of the path
    "not_found",  # 404: the endpoint is not offered
    "bad_cursor",  # 400: the page token is refused, though it is right; only where there is one
    "lookback",  # 400 reporting_lookback_exceeded
    "refused_group",  # 400 where `group` is among the group_by and start_time is before `before`
)
"""Trouble that takes the place of the answer."""
CHANGES: Final = (
    "slow",  # the answer comes after `seconds`
    "null_cursor",  # has_more is true and next_page null
    "repeated_cursor",  # has_more is true and next_page the one just used
    "empty_more",  # past the last page there is another, of no buckets
    "money_string",  # amounts as strings
    "money_long",  # amounts with 34 digits
    "money_long_string",  # … as strings
    "unknown_fields",  # fields that nobody declared, in the page, the buckets and the rows
    "integral_floats",  # 10.0 for 10
    "duplicate_rows",  # every row as two of the same key that add up
    "null_dims",  # no key and no user though grouped by them
    "missing_optional",  # the optional fields of a row are absent
    "bare_error",  # errors as {"error": "text"}
    "overlapping_pages",  # half as many buckets a page; each but the first begins with one again
    "lagging_hours",  # hours show only what days showed `seconds` (3600) ago
    "no_iso",  # without start_time_iso and end_time_iso
)
"""Trouble that changes the answer."""


@dataclass(slots=True)
class Fault:
    """One kind of trouble for the requests whose path below /v1/organization/ begins with `path`.

    It lets `after` of them pass, then strikes each with `probability`, `times` times (None: without
    end). `before` is a UTC date or a Unix time (None: always).
    """

    kind: str
    path: str = ""
    probability: float = 1.0
    after: int = 0
    times: int | None = None
    status: int = 0
    seconds: float = 0.0
    retry_after: int | str | None = None
    group: str = ""
    before: int | str | None = None

    def __post_init__(self) -> None:
        if self.kind not in ANSWERS + CHANGES:
            raise ValueError(f"fault {self.kind!r}: expected one of {', '.join(ANSWERS + CHANGES)}")
        if not 0 <= self.probability <= 1:
            raise ValueError(
                f"fault {self.kind}: probability: expected a number from 0 to 1, got {self.probability!r}"
            )

        if isinstance(self.before, str):
            self.before = midnight(date.fromisoformat(self.before))

    def concerns(
        self, path: str, group_by: Iterable[str], cursor: bool, start_time: int = 0
    ) -> bool:
        """Whether such a request can be struck at all."""
        if not path.startswith(self.path):
            return False
        if self.kind == "bad_cursor":
            return cursor
        if self.kind == "refused_group":
            before = float("inf") if self.before is None else float(self.before)
            return self.group in group_by and start_time < before
        return True


class Faults:
    """The faults in force, exchangeable at any time, and a hard limit of requests in any 60
    seconds.

    What it decides depends only on the rng and the order of requests.
    """

    def __init__(
        self,
        faults: Iterable[Fault] = (),
        *,
        rng: random.Random | None = None,
        requests_per_minute: int | None = None,
    ) -> None:
        self._rng = rng or random.Random(0)
        self._recent: deque[float] = deque()
        self.requests_per_minute = requests_per_minute
        self.faults = list(faults)

    def add(self, fault: Fault) -> None:
        """Put one more into force."""
        self.faults.append(fault)

    def clear(self) -> None:
        """From now on all is well, but for the hard limit."""
        self.faults = []

    def strike(
        self,
        path: str,
        group_by: Iterable[str] = (),
        cursor: bool = False,
        start_time: int = 0,
    ) -> list[Fault]:
        """The faults that befall one request, in the order they were put into force."""
        group_by = tuple(group_by)
        return [
            fault
            for fault in self.faults
            if fault.concerns(path, group_by, cursor, start_time) and self._strikes(fault)
        ]

    def _strikes(self, fault: Fault) -> bool:
        if fault.after > 0:
            fault.after -= 1
            return False
        if fault.times == 0 or (fault.probability < 1 and self._rng.random() >= fault.probability):
            return False
        if fault.times is not None:
            fault.times -= 1
        return True

    def wait(self, unix: float) -> float | None:
        """Count a request; the seconds to wait where the hard limit is reached, else None."""
        while self._recent and self._recent[0] <= unix - 60:
            self._recent.popleft()
        if self.requests_per_minute is not None and len(self._recent) >= self.requests_per_minute:
            return self._recent[0] + 60 - unix
        self._recent.append(unix)
        return None

    def load(self, document: Mapping[str, object]) -> None:
        """Replace all by {"faults": [{"kind": …}], "requests_per_minute": …}. Raises ValueError and
        changes nothing if that is odd.
        """
        entries = document.get("faults", [])
        limit = document.get("requests_per_minute")
        if not isinstance(entries, list) or not (limit is None or isinstance(limit, int)):
            raise ValueError(
                "faults: expected a list; requests_per_minute: expected a whole number or null"
            )
        self.faults = [_fault(entry) for entry in entries]
        self.requests_per_minute = limit


def _fault(entry: object) -> Fault:
    if not isinstance(entry, dict):
        raise ValueError(f"faults: expected objects, got {entry!r}")
    known = {field.name for field in fields(Fault)}
    if strangers := sorted(set(entry) - known):
        raise ValueError(
            f"fault: unknown {', '.join(strangers)}; known are {', '.join(sorted(known))}"
        )
    if "kind" not in entry:
        raise ValueError("fault: kind is missing")
    return Fault(**entry)
