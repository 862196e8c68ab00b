"""Random faults, in the manner of Jepsen: replicas are killed, stopped and frozen, and the database
crashes, while events come in and every replica is scraped.
"""

import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.installed import samples
from tests.real.postgres import Postgres
from tests.real.processes import wait_for
from tests.replicas.cluster import ORGANIZATIONS, Cluster, Replica

LEASE = 2.0
BATCH = 10


@pytest.fixture
def cluster(tmp_path: Path, own_postgres: Postgres) -> Iterator[Cluster]:
    """Three replicas on a database that may be killed."""
    running = Cluster(tmp_path, own_postgres.location(), LEASE)
    try:
        for _ in range(3):
            running.start()
        running.owned()
        yield running
    finally:
        running.close()


class Load:
    """Sends numbered events, each batch again until it is answered 204, to two replicas."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.sent = 0
        self._cluster = cluster
        self._chance = random.Random(seed)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            numbers = range(self.sent, self.sent + BATCH)
            doors = self._chance.sample(self._cluster.replicas, 2)
            # The same batch at two doors: at the second one it is a repetition.
            answers = {door.post(numbers) for door in doors}
            if 204 in answers:
                self.sent += BATCH

    def stop(self) -> None:
        """End after the batch that is being sent."""
        self._ended.set()
        self._thread.join(60)


class Observer:
    """Scrapes all replicas. Notes counters that fell, and organizations that two replicas showed."""

    def __init__(self, cluster: Cluster, postgres: Postgres) -> None:
        self.problems: list[str] = []
        self.scrapes = 0
        self._cluster = cluster
        self._postgres = postgres
        self._url_schema = str(cluster.settings["state"]["url"]).rpartition("%3D")[2]  # type: ignore[index]
        self._highest: dict[object, float] = {}
        self._showed: dict[tuple[str, int], str] = {}
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(3)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        while not self._ended.wait(0.05):
            replicas = list(self._cluster.replicas)
            if number < len(replicas):
                self._scrape(replicas[number])

    def _scrape(self, replica: Replica) -> None:
        before = self._tokens()
        lowest = dict(self._highest)
        text = replica.page(timeout=20)
        after = self._tokens()
        if not text:
            return
        self.scrapes += 1
        for name in ("openai_api_tokens_total", "openai_metered_tokens_total"):
            for key, value in samples(text, name).items():
                if value < lowest.get(key, 0.0):
                    self.problems.append(
                        f"{replica.name}: {key} fell from {lowest[key]} to {value}"
                    )
                self._highest[key] = max(value, self._highest.get(key, 0.0))
        for organization in replica.shows(text):
            token = before.get(organization)
            # The whole request lay in the time of one owner.
            if token is None or after.get(organization) != token:
                continue
            shower = self._showed.setdefault((organization, token), replica.name)
            if shower != replica.name:
                self.problems.append(
                    f"{organization} with token {token}: {shower} and {replica.name} showed it"
                )

    def _tokens(self) -> dict[str, int]:
        """The token of each organization."""
        try:
            rows = self._postgres.execute("SELECT scope, token FROM leases", self._url_schema)
        except Exception:  # noqa: BLE001 - the database is away
            return {}
        return {str(scope).partition(" ")[2]: int(str(token)) for scope, token in rows}

    def stop(self) -> None:
        """End after the scrapes on their way."""
        self._ended.set()
        for thread in self._threads:
            thread.join(30)


def fault(cluster: Cluster, postgres: Postgres, chance: random.Random) -> None:
    """Do one thing that goes wrong, and put it right again."""
    kind = chance.choice(("kill", "terminate", "freeze", "freeze", "database"))
    place = chance.randrange(len(cluster.replicas))
    replica = cluster.replicas[place]
    if kind == "database":
        postgres.kill()
        time.sleep(chance.uniform(0.1, 2 * LEASE))
        postgres.start()
    elif kind == "freeze":
        replica.process.signal(signal.SIGSTOP)
        time.sleep(chance.uniform(0.5, 3 * LEASE))
        replica.process.signal(signal.SIGCONT)
    else:
        if kind == "kill":
            replica.process.kill()
        else:
            replica.process.stop()
        time.sleep(chance.uniform(0.0, LEASE))
        cluster.restart(place)
    time.sleep(chance.uniform(0.2, 2.0))


def run(cluster: Cluster, postgres: Postgres, faults: int, seed: int) -> None:
    """Faults under load; then everything must be exact."""
    chance = random.Random(seed)
    load = Load(cluster, seed)
    observer = Observer(cluster, postgres)
    try:
        for _ in range(faults):
            fault(cluster, postgres, chance)
    finally:
        load.stop()
    cluster.owned()
    wait_for(lambda: cluster.metered() == 3 * load.sent, f"{load.sent} events", 60)
    wait_for(cluster.is_exact, "all that was used", 60)
    observer.stop()
    assert observer.problems == []
    assert observer.scrapes > faults
    assert load.sent > 0
    shown = [name for replica in cluster.replicas for name in replica.shows()]
    assert sorted(shown) == sorted(ORGANIZATIONS)


@pytest.mark.timeout(280)
def test_a_few_faults_end_exact(cluster: Cluster, own_postgres: Postgres) -> None:
    """After random faults every counter has what was used and every event counted once. Meanwhile no
    counter fell, and no two replicas showed one organization.
    """
    run(cluster, own_postgres, faults=4, seed=1)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_two_hundred_faults_end_exact(cluster: Cluster, own_postgres: Postgres) -> None:
    """As above, with 200 faults."""
    run(cluster, own_postgres, faults=200, seed=2)
