"""A real Prometheus scrapes two replicas as docs/storage.md says, over a take-over and a hand-over."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.real.postgres import Postgres
from tests.real.processes import get, wait_for
from tests.real.prometheus import Prometheus
from tests.real.servers import ROOT
from tests.replicas.cluster import LEASE, Cluster

SERIES = 'openai_api_tokens_total{organization="north"}'


@pytest.fixture
def cluster(tmp_path: Path, postgres: Postgres) -> Iterator[Cluster]:
    """Two replicas that share the organizations."""
    running = Cluster(tmp_path, postgres.location())
    try:
        running.start()
        running.start()
        running.owned()
        wait_for(lambda: all(len(each.owns()) == 1 for each in running.replicas), "even shares")
        yield running
    finally:
        running.close()


def documented() -> dict[str, Any]:
    """The scrape configuration of docs/storage.md."""
    text = (ROOT / "docs" / "storage.md").read_text()
    (block,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", text, re.DOTALL)
    (job,) = yaml.safe_load(block)["scrape_configs"]
    return dict(job)


@pytest.mark.real
def test_a_series_goes_on_at_the_next_owner(cluster: Cluster, tmp_path: Path) -> None:
    """Usage has the same labels at each replica, so a take-over and a hand-over leave one series, no
    sample twice or out of order, no reset, and nothing that `increase()` misses.
    """
    targets = [f"127.0.0.1:{replica.port}" for replica in cluster.replicas]
    job = documented() | {"static_configs": [{"targets": targets}]}
    folder = tmp_path / "prometheus"
    folder.mkdir()
    prometheus = Prometheus(folder, [], settings={"scrape_configs": [job]})
    try:
        first = prometheus.wait_for(f"count({SERIES})")
        began = time.time()
        owner = cluster.owned()["north"]
        owner.process.kill()
        cluster.replicas.remove(owner)
        other = cluster.replicas[0]
        wait_for(lambda: other.shows() == {"north", "south"}, "the take-over", LEASE + 5)
        third = cluster.start(port=owner.port)
        wait_for(lambda: len(other.owns()) == len(third.owns()) == 1, "even shares")
        wait_for(cluster.is_exact, "all that was used")
        prometheus.wait_for("sum(otel_openai_usage_owner) == 2")
        assert other.process.stop() == 0
        cluster.replicas.remove(other)
        wait_for(lambda: third.shows() == {"north", "south"}, "the hand-over", 10)
        prometheus.wait_for(f"count({SERIES})")
        ended = time.time()
        found = prometheus.query_range(SERIES, began, ended, 1.0)
        instances = {dict(labels)["instance"] for labels in found}
        assert instances == {"openai-usage"}
        assert len(found) >= next(iter(first.values()))
        resets = prometheus.query(f"max(resets({SERIES}[5m]))")
        assert set(resets.values()) == {0.0}
        _, health = get(f"{prometheus.url}/metrics")
        for kind in ("out_of_order", "duplicate_timestamp"):
            assert f"prometheus_target_scrapes_sample_{kind}_total 0\n" in health
    finally:
        prometheus.process.stop()
