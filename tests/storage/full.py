"""An exporter whose disk is full for two hours. Run by test_full: `python -m tests.storage.full
FOLDER disk|quota`.
"""

import asyncio
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from otel_openai_usage.domain.model import Width
from otel_openai_usage.errors import StateError
from otel_openai_usage.simulator.world import World
from otel_openai_usage.storage.sqlite.file import why_unwritable
from tests.conservation.rig import HASTE, HOUR, MINUTE, Life, Options, added, counted


def fill(folder: Path) -> Callable[[], None]:
    """Fill the disk. The returned function frees it."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass
    return ballast.unlink


def limit(_: Path) -> Callable[[], None]:
    """Limit the size of files to one page. The returned function removes the limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def main(folder: Path, how: str) -> None:
    """Run with a full disk for two hours in between, and end with exact totals."""
    life = Life(
        folder / "state.db",
        World.tiny(3, lateness=HASTE),
        endpoints=("completions", "costs"),
        options=Options(settle=30 * MINUTE),
    )
    await life.live(2 * HOUR, pauses=(300,))
    make_room = {"disk": fill, "quota": limit}[how](folder)
    failed = 0
    for _ in range(24):
        life.time.pass_(300)
        await life.poll()
        failed += sum(isinstance(loop.error, StateError) for loop in life.run.loops)
        for source_state in life.run.source_states:
            rows = life.run.store.rows_within(
                source_state,
                Width,
                source_state.progress.epoch,
                source_state.progress.epoch + 90 * 86400,
            )
            assert added({row.dims: row.amounts} for row in rows) == counted(source_state), "torn"
    assert how == "quota" or why_unwritable(folder), "readiness would not know"
    assert failed > 10, f"only {failed} polls failed"
    assert 0 in {
        value for (name, _), value in life.run.points().items() if name == "openai.api.up"
    }, "nobody can see it"
    make_room()
    assert not why_unwritable(folder)
    await life.live(HOUR, pauses=(300,))
    await life.end()
    sys.stdout.write(f"exact after {failed} failed polls\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
