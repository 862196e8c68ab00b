"""Requests wait for one worker, which records their events together."""

import asyncio
from types import SimpleNamespace

import pytest

from otel_openai_usage.ingest import intake
from otel_openai_usage.ingest.intake import Intake


async def test_a_bug_fails_its_requests_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The requests that wait for a later transaction are answered, whatever the first one raised."""
    monkeypatch.setattr(intake, "MAX_PER_COMMIT", 1)
    transactions = 0

    async def do(_: object) -> SimpleNamespace:
        nonlocal transactions
        transactions += 1
        await asyncio.sleep(0)
        if transactions == 1:
            raise LookupError("a bug")
        return SimpleNamespace(accepted=1, duplicates=0, conflicts=0, deltas=())

    recorder = SimpleNamespace(clock=SimpleNamespace(mono=lambda: 0.0), do=do)
    counts = SimpleNamespace(event=lambda *_: None)
    subject = Intake(recorder, None, {}, counts, dedupe=1)  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        results = await asyncio.gather(
            subject.take([object()]),  # type: ignore[list-item]
            subject.take([object()]),  # type: ignore[list-item]
            return_exceptions=True,
        )
    assert [type(result) for result in results] == [LookupError, type(None)]
