"""The real command under load, killed with kill -9: nothing that was answered 204 is lost, nothing
counts twice.
"""

import asyncio
import json
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import aiohttp
import yaml

from tests.ingest.conftest import MANY, PATH, event
from tests.real.processes import free_port

SENDERS = 8


class Exporter:
    """The command, with nothing but the events listener."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.state = folder / "state.db"
        self._config = folder / "config.yaml"
        sections: dict[str, object] = {
            name: {"enabled": False}
            for name in ("usage", "costs", "limits", "names", "prometheus", "prices")
        }
        sections |= {
            "events": {"enabled": True, "port": self.port},
            "state": {"path": str(self.state)},
        }
        self._config.write_text(yaml.safe_dump(sections))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}{PATH}"

    def _run(self) -> None:
        command = [sys.executable, "-m", "otel_openai_usage", "run", "-c", str(self._config)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    async def start(self) -> None:
        """Run, and wait until it listens."""
        self._run()
        for _ in range(200):
            try:
                async with aiohttp.ClientSession() as session, session.get(self.url):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
        raise AssertionError("does not listen")

    def end(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)
        self._process.wait(15)

    def stored(self) -> tuple[int, int, int]:
        """Identities; requests in the rows; requests in the totals."""
        with sqlite3.connect(self.state) as db:
            identities = {identity for (identity,) in db.execute("SELECT identity FROM events")}
            for (pairs,) in db.execute("SELECT pairs FROM arrived"):
                identities.update(pairs[at : at + 16] for at in range(0, len(pairs), 24))
            ((requests,),) = db.execute("SELECT coalesce(sum(requests), 0) FROM readings")
            return (
                len(identities),
                requests,
                sum(json.loads(total)[-1] for (total,) in db.execute("SELECT total FROM dims")),
            )


async def send(
    exporter: Exporter, sender: int, life: int, answered: set[str], sent: set[str]
) -> None:
    """Send batches, some of what was sent before among them, until the server is gone."""
    chance = random.Random(f"{sender} {life}")
    async with aiohttp.ClientSession() as session:
        for number in range(100_000):
            ids = [
                f"{life}-{sender}-{number}-{place}" for place in range(chance.choice([1, 1, 5, 40]))
            ]
            ids += chance.sample(sorted(sent), min(len(sent), 3))
            sent.update(ids)
            body = json.dumps([event(id_, id=id_, subject=f"s{len(id_) % 3}") for id_ in ids])
            try:
                async with session.post(
                    exporter.url, data=body, headers={"Content-Type": MANY}
                ) as answer:
                    assert answer.status == 204
            except aiohttp.ClientError:
                return
            answered.update(ids)


async def test_kill_9_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Three lives, each killed while eight clients send: afterwards every answered event is there,
    and each once.
    """
    exporter = Exporter(tmp_path)
    answered = set[str]()
    sent = set[str]()
    for life in range(3):
        await exporter.start()
        senders = [
            asyncio.create_task(send(exporter, sender, life, answered, sent))
            for sender in range(SENDERS)
        ]
        await asyncio.sleep(0.7 + random.Random(life).random() / 2)
        exporter.end(signal.SIGKILL)
        await asyncio.gather(*senders)
        identities, rows, totals = exporter.stored()
        assert len(answered) <= identities == rows == totals <= len(sent)
    assert len(answered) > 100
    await exporter.start()
    async with (
        aiohttp.ClientSession() as session
    ):  # the clients send again what was not answered, and all else to be sure
        everything = sorted(sent)
        for first in range(0, len(everything), 1000):
            body = json.dumps(
                [
                    event(id_, id=id_, subject=f"s{len(id_) % 3}")
                    for id_ in everything[first : first + 1000]
                ]
            )
            async with session.post(
                exporter.url, data=body, headers={"Content-Type": MANY}
            ) as answer:
                assert answer.status == 204
    exporter.end(signal.SIGTERM)
    assert exporter.stored() == (len(sent), len(sent), len(sent))
