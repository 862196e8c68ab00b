"""Hypothesis takes its time where two cores are shared; what it finds in CI can be found again."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "here", max_examples=40, deadline=None, derandomize=bool(os.environ.get("CI")), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("here")
