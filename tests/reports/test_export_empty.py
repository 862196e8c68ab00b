"""`export` of days without rows."""

from pathlib import Path

import pytest

from otel_openai_usage import cli
from otel_openai_usage.storage.sqlite.store import Store


@pytest.mark.parametrize("form", ["csv", "json", "focus"])
def test_a_range_without_rows_is_a_warning(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """stderr says that nothing is stored; the exit code is 0, and stdout has no row."""
    Store(tmp_path / "state.db").close()
    config = tmp_path / "config.yaml"
    config.write_text(f"state: {{path: {tmp_path / 'state.db'}}}\n")
    monkeypatch.delenv("OTEL_OPENAI_USAGE_CONFIG", raising=False)
    days = ["--from", "2026-10-01", "--to", "2026-10-31"]
    assert cli.answer(["export", "-c", str(config), *days, "--format", form]) == 0
    printed = capsys.readouterr()
    assert "warning: nothing is stored from 2026-10-01 to 2026-10-31" in printed.err
    assert len(printed.out.splitlines()) == (0 if form == "json" else 1)
