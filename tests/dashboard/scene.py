"""When the tests' afternoon is."""

import time

from otel_openai_usage.domain.model import Width, floor

NOW = floor(int(time.time()), Width.DAY) + 15 * 3600
"""This afternoon, UTC."""
