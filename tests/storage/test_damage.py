"""A damaged state is refused with a sentence, reported or harmless. It is never silently wrong."""

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from otel_openai_usage.storage.sqlite.store import Store
from tests.storage.damage import DAMAGES, Copies, choose, content, killed_state, outcome

GOOD = ("refused", "reported", "harmless")


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Copies:
    """The files of a killed exporter."""
    return killed_state(tmp_path_factory.mktemp("state"))


def opened_copy(copies: Copies, folder: Path) -> Path:
    """A copy of the killed state."""
    if folder.exists():
        shutil.rmtree(folder)
    return Path(shutil.copytree(copies.killed, folder))


def truth(copies: Copies, folder: Path) -> object:
    """The content of the undamaged state, which opens without a loss."""
    store = Store(opened_copy(copies, folder) / "state.db")
    assert store.losses == []
    assert store.opening.warnings == ()
    found = content(store)
    store.close()
    return found


def damaged(copies: Copies, folder: Path, seeds: range) -> Counter[tuple[str, str]]:
    """The number of outcomes by kind of damage."""
    right = truth(copies, folder)
    found: Counter[tuple[str, str]] = Counter()
    for seed in seeds:
        rng = random.Random(seed)
        name = choose(seed, rng)
        DAMAGES[name](opened_copy(copies, folder), copies, rng)
        said = outcome(folder, right)
        found[name, said] += 1
        assert said in GOOD, f"seed {seed}, {name}: {said}"
    return found


def test_a_damaged_state_is_never_silently_wrong(copies: Copies, tmp_path: Path) -> None:
    """Each kind of damage, and flipped bits at many places, is refused, reported or harmless."""
    found = damaged(copies, tmp_path / "copy", range(2 * len(DAMAGES)))
    assert {name for name, _ in found} == set(DAMAGES)


@pytest.mark.long
@pytest.mark.parametrize("first", range(1000, 1300, 50))
def test_three_hundred_damaged_states_are_never_silently_wrong(
    copies: Copies, tmp_path: Path, first: int
) -> None:
    """300 seeded damages are refused, reported or harmless."""
    found = damaged(copies, tmp_path / "copy", range(first, first + 50))
    assert {said for _, said in found} == set(GOOD)


@pytest.mark.parametrize(
    "name",
    ["no log", "a bit of the log's header", "an old state"],
)
def test_what_is_missing_is_reported(copies: Copies, tmp_path: Path, name: str) -> None:
    """A state without its newest commits is used, and the start says how much is missing."""
    folder = opened_copy(copies, tmp_path / "copy")
    DAMAGES[name](folder, copies, random.Random(3))
    store = Store(folder / "state.db")
    assert [loss.reason for loss in store.losses] == ["older"]
    assert 5 < store.lost_seconds < 500
    assert content(store) != truth(copies, tmp_path / "truth")
    store.close()
