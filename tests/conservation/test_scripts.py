"""Random scripts against the whole exporter: see script.py."""

from pathlib import Path

import pytest

from tests.conservation.script import Machine


@pytest.mark.parametrize("seed", range(6))
async def test_a_random_script_ends_exact(seed: int, tmp_path: Path) -> None:
    """Through late usage, kills, changed settings and wrong clocks no counter falls, and in the end
    what is shown less what is pending is what was used.
    """
    await Machine(seed, tmp_path).play(steps=40)


async def test_a_random_script_over_http_ends_exact(tmp_path: Path) -> None:
    """The same over real HTTP."""
    machine = Machine(11, tmp_path, over_http=True)
    await machine.play(steps=25)
    assert machine.organization.asked


@pytest.mark.long
@pytest.mark.parametrize("block", range(20))
async def test_five_hundred_random_scripts_end_exact(block: int, tmp_path: Path) -> None:
    """The same for 500 longer scripts."""
    for seed in range(1000 + 25 * block, 1025 + 25 * block):
        directory = tmp_path / str(seed)
        directory.mkdir()
        await Machine(seed, directory).play(steps=60)
