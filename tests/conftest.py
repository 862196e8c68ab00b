"""What every test may use: `prometheus` and `collector` start the real servers."""

from tests.real.collector import collector
from tests.real.prometheus import prometheus

__all__ = ["collector", "prometheus"]
