"""The poll of one usage endpoint, with a real store."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from otel_openai_usage.domain.endpoints import USAGE_ENDPOINTS
from otel_openai_usage.domain.model import Width, Window
from otel_openai_usage.domain.readings import Reading
from otel_openai_usage.errors import TooLarge
from otel_openai_usage.simulator.lateness import PROMPT
from otel_openai_usage.simulator.world import World
from tests.conservation.rig import Life, WorldSource


class Narrow(WorldSource):
    """OpenAI, asked by somebody whose memory holds so many buckets at a time."""

    fits = 100

    async def read(
        self,
        window: Window,
        width: Width,
        group_by: Sequence[str],
        known_fingerprints: Mapping[int, bytes],
    ) -> Reading:
        if (window.end - window.start) // width > self.fits:
            self.asked.append((window, width))
            raise TooLarge("GET usage: the answer needs more than api.max_bytes")
        return await super().read(window, width, group_by, known_fingerprints)


class NarrowLife(Life):
    """A Life that reads from such a source."""

    def source(self, endpoint: str) -> Narrow:
        return Narrow(self.world, USAGE_ENDPOINTS[endpoint], self.time)


async def test_an_answer_that_is_too_large_is_read_in_shorter_windows(tmp_path: Path) -> None:
    """A first read of ten hours of minutes, of which 100 fit: every token is counted once."""
    life = NarrowLife(tmp_path / "state.db", World(seed=5, lateness=PROMPT))
    await life.poll()
    assert all(source_state.progress.complete for source_state in life.run.source_states)
    await life.end()


async def test_an_answer_that_is_always_too_large_is_a_failed_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for a few times in shorter windows, and then not any more."""
    monkeypatch.setattr(Narrow, "fits", 0)
    life = NarrowLife(tmp_path / "state.db", World(seed=5, lateness=PROMPT))
    await life.poll()
    (loop,) = life.run.loops
    assert isinstance(loop.error, TooLarge)
    source = life.sources["default", "completions"]
    assert isinstance(source, Narrow)
    assert len(source.asked) == 5
    life.stop()
