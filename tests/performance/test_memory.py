"""What the collector looks through."""

import gc
import subprocess
import sys

import pytest

from otel_openai_usage.memory import Shelf


def test_what_lives_long_is_out_of_the_collector_s_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen when there is more by a quarter, and not again for less: freezing may also keep
    garbage for ever.
    """
    sizes = iter((0, 100, 110, 125, 126, 50, 150, 158))
    frozen = []
    shelf = Shelf()
    for size in sizes:
        monkeypatch.setattr(gc, "freeze", lambda size=size: frozen.append(size))
        shelf.grew(size)
    assert frozen == [100, 126, 158]


def test_large_blocks_go_back_to_the_system() -> None:
    """After a body of 30 MB, which teaches glibc to keep blocks of that size, a hundred blocks of 1
    MB come and go.
    """
    program = (
        "import psutil\nfrom otel_openai_usage.memory import tune_allocator\ntune_allocator()\n"
        "rss = lambda: psutil.Process().memory_info().rss\n"
        "before = rss()\nbody = bytes(30_000_000)\ndel body\n"
        "pieces = [b'x' * 1_000_000 for _ in range(100)]\nkeep = [b'y' * 900 for _ in range(100)]\n"
        "del pieces\nprint(rss() - before)"
    )
    grown = int(
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout
    )
    assert grown < 10_000_000
