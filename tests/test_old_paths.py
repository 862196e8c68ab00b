"""Import paths of 0.1 that people use work for one more release, and warn."""

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("old", "name", "new", "new_name"),
    [
        (
            "otel_openai_usage.pricing",
            "Prices",
            "otel_openai_usage.providers.openai.prices",
            "Prices",
        ),
        (
            "otel_openai_usage.core.kinds",
            "USAGE_KINDS",
            "otel_openai_usage.domain.endpoints",
            "USAGE_ENDPOINTS",
        ),
        ("otel_openai_usage.metering", "Meter", "otel_openai_metering", "Meter"),
    ],
)
def test_an_old_path_works_and_warns(old: str, name: str, new: str, new_name: str) -> None:
    """The old path gives the same object, with a DeprecationWarning that names the new one."""
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=new.replace(".", r"\.")):
        found = getattr(importlib.import_module(old), name)
    assert found is getattr(importlib.import_module(new), new_name)
