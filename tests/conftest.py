"""What every test may use: real servers (`prometheus`, `collector`), the installed command
(`simulator`, `run`), golden files.
"""

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.golden import golden
from tests.real.collector import collector
from tests.real.installed import run, simulator, surroundings
from tests.real.postgres import own_postgres, postgres
from tests.real.prometheus import prometheus

__all__ = [
    "collector",
    "golden",
    "own_postgres",
    "postgres",
    "prometheus",
    "run",
    "simulator",
    "surroundings",
]

# Hypothesis takes its time where two cores are shared; what it finds in CI can be found again.
settings.register_profile(
    "here",
    max_examples=40,
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("here")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` writes golden files anew."""
    parser.addoption("--update-golden", action="store_true", help="write golden files anew")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Leave logging as the test found it.

    A command that runs within a test sets up the root logger as `run` does. Its level would stay
    for every later test, and its handler would write to a stream that pytest has closed.
    """
    root = logging.getLogger()
    level = root.level
    handlers = list(root.handlers)
    yield
    root.setLevel(level)
    for handler in list(root.handlers):
        if handler not in handlers:
            root.removeHandler(handler)
