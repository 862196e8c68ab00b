"""Both stores, for the tests of what they have in common."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from otel_openai_usage.composition.stores import open_writer
from otel_openai_usage.config import Location
from otel_openai_usage.storage.ports import Writer

OpenStore: TypeAlias = Callable[[], Writer]
"""Opens the test's own store for writing, again and again. It is closed after the test."""


@pytest.fixture(params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """Where a new store may be, once for each kind of store."""
    if request.param == "sqlite":
        return tmp_path / "state.db"
    found: Location = request.getfixturevalue("postgres").location()
    return found


@pytest.fixture
def open_store(location: Location) -> Iterator[OpenStore]:
    """Opens the test's store."""
    opened: list[Writer] = []

    def open_again() -> Writer:
        opened.append(open_writer(location))
        return opened[-1]

    yield open_again
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> Writer:
    """A new store, once for each kind."""
    return open_store()
