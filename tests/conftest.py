"""What every test may use: real servers (`prometheus`, `collector`), the installed command (`simulator`, `run`), golden files."""

import pytest

from tests.golden import golden
from tests.real.collector import collector
from tests.real.installed import run, simulator, surroundings
from tests.real.prometheus import prometheus

__all__ = ["collector", "golden", "prometheus", "run", "simulator", "surroundings"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` writes golden files anew."""
    parser.addoption("--update-golden", action="store_true", help="write golden files anew")
