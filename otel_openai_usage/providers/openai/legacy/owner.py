"""Keeps the legacy source's data of another organization out of the state."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from otel_openai_usage.domain.identity import Identity, Verdict, compare
from otel_openai_usage.domain.model import Dims, Rows, Width
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.errors import OtherOrganization, Unavailable

_NOTE = "legacy.owner"
MARKS = 32
"""The number of key marks that are stored, the newest ones."""


class State(Protocol):
    """The state, as it is needed here. Every method raises StateError."""

    def note(self, key: str) -> str | None: ...
    def set_note(self, key: str, value: str) -> None: ...
    def rows_within(
        self, source_state: SourceState, widths: Iterable[int], start: int, end: int
    ) -> Sequence[object]: ...


class Answer(Protocol):
    """The usage of one day: `openai.legacy.source.Day`."""

    @property
    def hours(self) -> Mapping[int, Rows]: ...
    @property
    def by_user(self) -> bool: ...


class LegacyOwner:
    """Compares each answer with the stored rows: each record names its organization.

    `mark` stands for the key and the base URL.
    """

    def __init__(self, state: State, source_state: SourceState, mark: str) -> None:
        self._state = state
        self._source_state = source_state
        self._mark = mark

    def admit(self, day: int, answer: Answer) -> None:
        """Let an answer for a UTC day pass if it is of the state's organization.

        Raises OtherOrganization if not, Unavailable if that cannot be found out yet, and StateError.
        """
        hours = answer.hours
        known = self._identity(self._source_state.series)
        seen = self._identity(dims for rows in hours.values() for dims in rows)
        verdict = compare(known, seen)
        if verdict is Verdict.OTHER:
            raise OtherOrganization(self._sentence(known, seen))
        marks = json.loads(self._state.note(_NOTE) or "[]")
        if self._mark in marks:
            return
        if not any(hours.values()):
            # Where users are asked one by one, an empty answer replaces nothing.
            if not answer.by_user:
                self._refuse_silence(day)
            return
        self._state.set_note(_NOTE, json.dumps([*marks, self._mark][-MARKS:]))

    def _refuse_silence(self, day: int) -> None:
        """Raise Unavailable if stored rows exist: a day without records names no organization."""
        if self._source_state.series and self._state.rows_within(
            self._source_state, tuple(Width), day, day + Width.DAY
        ):
            raise Unavailable(
                "GET usage: the key or base_url is new and this day is empty, which the state is not;"
                " nothing is counted until an answer says that it is of the same organization"
            )

    def _identity(self, found: Iterable[Dims]) -> Identity:
        dimensions = self._source_state.endpoint.dimensions
        organization = dimensions.index("organization_id")
        places = [dimensions.index(name) for name in ("project_id", "api_key_id")]
        ids: set[str | None] = set()
        members: set[str | None] = set()
        for dims in found:
            ids.add(dims[organization])
            members |= {dims[place] for place in places}
        return Identity(frozenset(filter(None, ids)), None, frozenset(filter(None, members)))

    def _sentence(self, known: Identity, seen: Identity) -> str:
        if known.ids and seen.ids:
            whose = f"of {seen.name}, and the state has the data of {known.name}"
        else:
            whose = "of another organization than the one whose data the state has"
        return (
            f"organization {self._source_state.organization!r}: legacy.api_key is {whose}. None of its usage is"
            " counted: set state.path to a new file, or give this organization another name; or put"
            " the former key back"
        )
