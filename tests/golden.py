"""Golden files: what a whole page looks like, kept beside the test."""

from collections.abc import Callable

import pytest


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares text with a file beside the test; `--update-golden` writes it instead. Read the diff
    before you commit it.
    """

    def compare(name: str, text: str) -> None:
        path = request.path.parent / name
        if request.config.getoption("--update-golden"):
            path.write_text(text)
        assert text == path.read_text()

    return compare
