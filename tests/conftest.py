"""What every test may use."""

import os

import pytest


@pytest.fixture(scope="session")
def in_ci() -> bool:
    """In CI a missing real server is a failure; on a desk it is a skip."""
    return bool(os.environ.get("CI"))
