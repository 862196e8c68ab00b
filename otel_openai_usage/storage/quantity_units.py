"""The units in which OpenAI counts the line items of its bill, as one note for each organization.

The note is JSON: `{line item: [units]}`. The quantities of a line item that has more than one unit
must not be added up.
"""

import json
from collections.abc import Mapping

from otel_openai_usage.storage.ports import Notes


def note_key(organization: str) -> str:
    """The key of an organization's note."""
    return f"quantity_units.{organization}"


def parse(text: str | None) -> dict[str, set[str]]:
    """The units of a note by line item."""
    units_by_item = json.loads(text or "{}")
    return {item: set(units) for item, units in units_by_item.items()}


class QuantityUnits:
    """The known units of one organization. Writes the note when there is a new one."""

    def __init__(self, notes: Notes, organization: str) -> None:
        self._notes = notes
        self._key = note_key(organization)
        self._known = parse(notes.note(self._key))

    def learn(self, units: Mapping[str, set[str]]) -> None:
        """Add the units that an answer contains, by line item. Raises StateError."""
        known = dict(self._known)
        for item, found in units.items():
            known[item] = known.get(item, set()) | found
        if known == self._known:
            return
        text = json.dumps({item: sorted(known[item]) for item in sorted(known)})
        self._notes.set_note(self._key, text)
        self._known = known
