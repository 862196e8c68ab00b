"""Several replicas of the installed command on one database, and two simulated organizations."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import yaml

from otel_openai_usage.config import DatabaseLocation
from otel_openai_usage.domain.model import Window
from tests.real.installed import COMMAND, KEY, Simulator, Surroundings, samples
from tests.real.processes import Process, free_port, get, wait_for

ORGANIZATIONS = ("north", "south")
LEASE = 2.0
MIDNIGHT = 86400


class Replica:
    """One process, with a port for scrapes and one for events."""

    def __init__(
        self, surroundings: Surroundings, settings: dict[str, object], name: str, port: int
    ) -> None:
        self.port = port or free_port()
        self.events = free_port()
        self.name = name
        file = surroundings.home / f"{name}.yaml"
        file.write_text(
            yaml.safe_dump(
                settings | {"events": {"enabled": True, "host": "127.0.0.1", "port": self.events}}
            )
        )
        command: list[str | Path] = [
            COMMAND,
            "run",
            "-c",
            file,
            "--listen",
            f"127.0.0.1:{self.port}",
        ]
        self.process = Process(command, surroundings.home / f"{name}.log", surroundings.env())
        self.process.ready(f"http://127.0.0.1:{self.port}/healthz")

    def page(self, timeout: float = 10) -> str:
        """What a scrape gets; empty if nobody answers."""
        try:
            return get(f"http://127.0.0.1:{self.port}/metrics", timeout=timeout)[1]
        except OSError:
            return ""

    def owns(self) -> set[str]:
        """The organizations that it says it owns."""
        return {
            dict(labels)["organization"]
            for (_, labels), value in samples(self.page(), "otel_openai_usage_owner").items()
            if value
        }

    def shows(self, page: str | None = None) -> set[str]:
        """The organizations of which it shows usage."""
        text = self.page() if page is None else page
        return {
            dict(labels)["organization"] for _, labels in samples(text, "openai_api_tokens_total")
        }

    def post(self, numbers: Sequence[int]) -> int:
        """Send one batch of events. The status, 0 without an answer."""
        batch = [
            {
                "specversion": "1.0",
                "id": str(number),
                "source": "test",
                "type": "openai",
                "subject": f"customer-{number % 5}",
                "data": {
                    "model": "gpt-5",
                    "prompt_tokens": 2,
                    "completion_tokens": 1,
                    "organization": ORGANIZATIONS[number % 2],
                },
            }
            for number in numbers
        ]
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.events}/api/v1/events",
            json.dumps(batch).encode(),
            {"Content-Type": "application/cloudevents-batch+json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


class Cluster:
    """The organizations, and any number of replicas of one configuration."""

    def __init__(self, folder: Path, location: DatabaseLocation, lease: float = LEASE) -> None:
        self.replicas: list[Replica] = []
        self._started = 0
        self._all: list[Replica] = []
        self.simulators: dict[str, Simulator] = {}
        for number, name in enumerate(ORGANIZATIONS):
            home = folder / name
            home.mkdir()
            self.simulators[name] = Simulator(Surroundings(home), ["--seed", str(20 + number)])
        self.surroundings = Surroundings(folder)
        self.settings: dict[str, object] = {
            "organizations": [
                {"name": name, "admin_key": KEY, "base_url": simulator.base_url}
                for name, simulator in self.simulators.items()
            ],
            "state": {"url": location.url, "lease": f"{lease:g}s"},
            "api": {"requests_per_minute": 60000, "retries": 0},
            "usage": {"interval": "1s"},
            "attributes": {"zero_hold": "0s"},
            "history": {"first": "none"},
        }

    def start(self, *, standby: bool = False, port: int = 0) -> Replica:
        """One replica more, on any port or a given one. A standby gets no key."""
        self._started += 1
        settings = dict(self.settings)
        if standby:
            settings["organizations"] = [{"name": name} for name in ORGANIZATIONS]
            settings["state"] = {**settings["state"], "standby": True}  # type: ignore[dict-item]
        replica = Replica(self.surroundings, settings, f"replica{self._started}", port)
        self.replicas.append(replica)
        self._all.append(replica)
        return replica

    def restart(self, place: int) -> None:
        """Start a replica in the place of one that ended."""
        self._started += 1
        name = f"replica{self._started}"
        replica = Replica(self.surroundings, self.settings, name, 0)
        self.replicas[place] = replica
        self._all.append(replica)

    def owner(self, organization: str) -> Replica | None:
        """Who owns an organization and shows it; None unless it is exactly one."""
        found = [replica for replica in self.replicas if organization in replica.owns()]
        if len(found) == 1 and organization in found[0].shows():
            return found[0]
        return None

    def owned(self, seconds: float = 30) -> dict[str, Replica]:
        """Wait until every organization has one owner that shows it."""
        return {
            name: wait_for(partial(self.owner, name), f"an owner of {name}", seconds)
            for name in ORGANIZATIONS
        }

    def union(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """All usage series that any replica shows."""
        found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for replica in self.replicas:
            for name in ("openai_api_tokens_total", "openai_metered_tokens_total"):
                for key, value in samples(replica.page(), name).items():
                    assert key not in found, f"{key} is shown twice"
                    found[key] = value
        return found

    def is_exact(self) -> bool:
        """Whether the counters have what the organizations used today until the last minute."""
        now = int(time.time())
        day = Window(now // MIDNIGHT * MIDNIGHT, now // 60 * 60)
        wanted = {}
        for name, simulator in self.simulators.items():
            rows = simulator.totals("completions", day, "model")
            wanted[name] = sum(row["input"] for row in rows.values())
        found = dict.fromkeys(ORGANIZATIONS, 0.0)
        for (name, labels), value in self.union().items():
            series = dict(labels)
            if name != "openai_api_tokens_total" or series["token_type"] != "input":
                continue
            if series["operation"] == "completions":
                found[series["organization"]] += value
        return wanted == {name: int(value) for name, value in found.items()}

    def metered(self) -> float:
        """Tokens of all events that any replica shows."""
        return sum(
            value
            for (name, _), value in self.union().items()
            if name == "openai_metered_tokens_total"
        )

    def close(self) -> None:
        """Stop every process."""
        for replica in self._all:
            if replica.process.running:
                replica.process.kill()
        for simulator in self.simulators.values():
            simulator.process.stop()
