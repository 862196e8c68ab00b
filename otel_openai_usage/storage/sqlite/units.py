"""The units in which OpenAI counts line items of its bill, kept beside the rows.

They are a note by organization: `{line item: [units]}`. A line item with more than one unit has
quantities that must not be added up.
"""

import json
from collections.abc import Mapping
from typing import Protocol


class Notes(Protocol):
    """Remembers small things across restarts. Every method raises StateError."""

    def note(self, key: str) -> str | None: ...
    def take_note(self, key: str, value: str) -> None: ...


def note_key(organization: str) -> str:
    """The key of an organization's note."""
    return f"quantity_units.{organization}"


def parsed(text: str | None) -> dict[str, set[str]]:
    """Units by line item."""
    return {item: set(units) for item, units in json.loads(text or "{}").items()}


class QuantityUnits:
    """Learns the units of one organization, and writes them down when there is a new one."""

    def __init__(self, notes: Notes, organization: str) -> None:
        self._notes = notes
        self._key = note_key(organization)
        self._known = parsed(notes.note(self._key))

    def learn(self, units: Mapping[str, set[str]]) -> None:
        """Take in what an answer says. Raises StateError."""
        known = dict(self._known)
        for item, found in units.items():
            known[item] = known.get(item, set()) | found
        if known != self._known:
            text = json.dumps({item: sorted(known[item]) for item in sorted(known)})
            self._notes.take_note(self._key, text)
            self._known = known
