"""Replicas as processes: who owns what, and what happens when one of them goes."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.real.installed import samples
from tests.real.postgres import Postgres
from tests.real.processes import wait_for
from tests.replicas.cluster import LEASE, Cluster


@pytest.fixture
def cluster(tmp_path: Path, postgres: Postgres) -> Iterator[Cluster]:
    """Two organizations and no replica yet."""
    running = Cluster(tmp_path, postgres.location())
    try:
        yield running
    finally:
        running.close()


def test_organizations_are_shared_and_taken_over(cluster: Cluster) -> None:
    """A second replica gets its share. One that is killed, stopped or frozen is replaced, and no
    counter falls or is shown twice; in the end all is exact, events at any door included.
    """
    first = cluster.start()
    assert set(cluster.owned()) == {"north", "south"}
    second = cluster.start()
    wait_for(lambda: len(first.owns()) == len(second.owns()) == 1, "even shares")
    instances = {
        dict(labels)["service_instance_id"]
        for replica in (first, second)
        for _, labels in samples(replica.page(), "target_info")
    }
    assert len(instances) == 2
    assert first.post(range(20)) == 204
    assert second.post(range(10, 30)) == 204
    wait_for(lambda: cluster.metered() == 90, "30 events")
    wait_for(cluster.is_exact, "all that was used")

    before = cluster.union()
    second.process.kill()
    cluster.replicas.remove(second)
    wait_for(lambda: len(first.owns()) == 2, "the killed replica's organization", LEASE + 5)
    wait_for(lambda: len(first.shows()) == 2, "its usage", LEASE + 5)
    after = cluster.union()
    assert all(after[key] >= value for key, value in before.items())

    third = cluster.start()
    wait_for(lambda: len(first.owns()) == len(third.owns()) == 1, "even shares")
    frozen = cluster.owned()["north"]
    other = first if frozen is third else third
    frozen.process.signal(signal.SIGSTOP)
    cluster.replicas.remove(frozen)
    wait_for(lambda: other.shows() == {"north", "south"}, "the frozen one's", LEASE + 5)
    # The first answers leave before it can know that it was replaced.
    with ThreadPoolExecutor(4) as scrapers:
        asked = [scrapers.submit(frozen.page, 30) for _ in range(4)]
        wait_for(lambda: all(answer.running() for answer in asked), "scrapes on their way")
        frozen.process.signal(signal.SIGCONT)
        pages = [answer.result() for answer in asked]
    assert all("otel_openai_usage_build_info" in page for page in pages)
    assert [frozen.shows(page) for page in pages] == [set()] * 4
    cluster.replicas.append(frozen)
    wait_for(lambda: len(frozen.owns()) == len(other.owns()) == 1, "even shares")

    assert frozen.process.stop() == 0
    cluster.replicas.remove(frozen)
    assert other.post(range(25, 40)) == 204
    wait_for(lambda: cluster.metered() == 120, "40 events")
    wait_for(cluster.is_exact, "all that was used")
    after = cluster.union()
    assert all(after[key] >= value for key, value in before.items())


def test_a_standby_takes_events_and_owns_nothing(cluster: Cluster) -> None:
    """It needs no key, is ready, and shows no usage. The owner keeps everything, and counts what the
    standby took.
    """
    standby = cluster.start(standby=True)
    standby.process.ready(f"http://127.0.0.1:{standby.port}/readyz")
    assert standby.post(range(10)) == 204
    owner = cluster.start()
    assert cluster.owned() == {"north": owner, "south": owner}
    assert standby.post(range(5, 20)) == 204
    wait_for(lambda: cluster.metered() == 60, "20 events")
    assert standby.shows() == standby.owns() == set()
    checked = cluster.surroundings.call("check", "--offline", "-c", f"{owner.name}.yaml")
    assert "shares the organizations with them" in checked.stdout
    assert checked.returncode == 0, checked.stdout
    info = cluster.surroundings.call("state", "info", "-c", f"{owner.name}.yaml")
    assert "organization north, organization south" in info.stdout
