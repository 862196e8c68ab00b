"""How a command accepts a loss in the state of a running exporter: by a small file beside it, so
that the state has one writer.
"""

import os
from contextlib import suppress
from pathlib import Path

from otel_openai_usage.storage.sqlite.file import translate_errors


def request_acceptance(path: str) -> None:
    """Ask the exporter that has the state to accept what it reported. Raises StateError."""
    with translate_errors(path, "wrote beside"):
        os.close(os.open(_request(path), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def acceptance_requested(path: str) -> bool:
    """Whether somebody asked."""
    return Path(_request(path)).exists()


def acceptance_done(path: str) -> None:
    """It was done."""
    with suppress(OSError):
        Path(_request(path)).unlink()


def _request(path: str) -> str:
    return f"{path}.accept"
