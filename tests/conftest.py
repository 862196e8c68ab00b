"""What every test may use: real servers (`prometheus`, `collector`) and the installed command (`simulator`, `run`)."""

from tests.real.collector import collector
from tests.real.installed import run, simulator, surroundings
from tests.real.prometheus import prometheus

__all__ = ["collector", "prometheus", "run", "simulator", "surroundings"]
