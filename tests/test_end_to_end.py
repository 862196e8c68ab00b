"""The installed command, as its users meet it: processes, sockets, signals, a real Prometheus, a
real Collector.
"""

import json
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from otel_openai_usage.domain.endpoints import USAGE_ENDPOINTS
from otel_openai_usage.domain.instruments import INSTRUMENTS
from otel_openai_usage.domain.model import Window, floor
from otel_openai_usage.simulator.world import World
from tests.real.collector import Collector
from tests.real.installed import (
    COMMAND,
    KEY,
    SEED,
    Exporter,
    Samples,
    Simulator,
    Surroundings,
    samples,
)
from tests.real.processes import Process, free_port, get, wait_for
from tests.real.prometheus import Prometheus

QUICK = {
    "api": {"requests_per_minute": 6000},
    "usage": {"interval": "1s"},
    "costs": {"interval": "2s"},
    "attributes": {"zero_hold": "0s"},
}
"""Settings that show within seconds what usually takes minutes."""
TYPES = ("input", "output", "input_cached", "input_audio", "output_audio", "input_cache_write")


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    """Write a configuration: QUICK and what is given."""

    def write(name: str = "config.yaml", **sections: object) -> Path:
        (tmp_path / name).write_text(yaml.safe_dump(QUICK | sections))
        return tmp_path / name

    return write


@pytest.fixture
def silence() -> Iterator[str]:
    """The address of a server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def names(scrape: Samples) -> set[str]:
    """Metric names in a scrape."""
    return {name for name, _ in scrape}


# --- what is counted


@pytest.mark.real
def test_prometheus_sees_what_openai_counted(
    run: Callable[..., Exporter],
    simulator: Simulator,
    prometheus: Callable[..., Prometheus],
    config: Callable[..., Path],
) -> None:
    """PromQL over a real Prometheus gives the simulated organization's own totals of today, to the
    token and request.
    """
    server = prometheus([run("-c", config()).address])
    wait_for(
        lambda: agree(server, simulator),
        "Prometheus and the simulated organization to agree",
        100,
        0.5,
    )


def agree(server: Prometheus, simulator: Simulator) -> bool:
    """Whether Prometheus and the simulation say the same of today's completions, by project, model
    and token type.
    """

    def counted(metric: str, *by: str) -> dict[tuple[str, ...], float]:
        answer = server.query(f"sum by ({', '.join(by)}) ({metric}{{operation='completions'}}) > 0")
        return {
            tuple(dict(labels).get(name, "") for name in by): value
            for labels, value in answer.items()
        }

    now = int(time.time())
    today = Window(floor(now, 86400), max(floor(now, 60), floor(now, 86400) + 60))
    truth = simulator.totals("completions", today, "project_id", "model")
    requests = {key: row["requests"] for key, row in truth.items() if row["requests"]}
    tokens = {(*key, kind): row[kind] for key, row in truth.items() for kind in TYPES if row[kind]}
    return bool(tokens) and (requests, tokens) == (
        counted("openai_api_requests_total", "project_id", "model"),
        counted("openai_api_tokens_total", "project_id", "model", "token_type"),
    )


@pytest.mark.real
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_collector_shows_what_we_show(
    protocol: str,
    collector: Callable[..., Collector],
    run: Callable[..., Exporter],
    config: Callable[..., Path],
) -> None:
    """Series by series, a real Collector that is sent OTLP exposes exactly what our own scrape
    does.
    """
    receiver = collector()
    endpoint = receiver.grpc if protocol == "grpc" else receiver.http
    exporter = run(
        "-c",
        config(otlp={"interval": "1s"}),
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{endpoint}",
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
    )

    def same() -> bool:
        ours = _steady(exporter.scrape())
        return len(names(ours)) > 8 and ours == _steady(samples(receiver.scrape())) == _steady(
            exporter.scrape()
        )

    try:
        receiver.process.until(same, "the same series on both sides", 60)
    except AssertionError:
        ours = _steady(exporter.scrape())
        theirs = _steady(samples(receiver.scrape()))
        pytest.fail(
            f"ours only: {sorted(ours.items() - theirs.items())[:5]}\ntheirs only: {sorted(theirs.items() - ours.items())[:5]}"
        )


def _steady(scrape: Samples) -> Samples:
    """All but the clocks, which tick between two looks."""
    return {
        key: value for key, value in scrape.items() if key[0] != "openai_api_last_success_seconds"
    }


def test_the_key_and_the_address_are_all_it_needs(run: Callable[..., Exporter]) -> None:
    """With OPENAI_ADMIN_KEY and OPENAI_BASE_URL alone it counts, and every source is up."""
    seen = run().scrape()
    assert names(seen) >= {
        "openai_api_daily_cost",
        "openai_api_spend_limit",
        "openai_api_last_success_seconds",
    }
    up = {
        dict(labels)["source"]: value
        for (name, labels), value in seen.items()
        if name == "openai_api_up"
    }
    assert up == dict.fromkeys(
        ["costs", "names", "limits", *(f"usage/{endpoint}" for endpoint in USAGE_ENDPOINTS)], 1.0
    )


def test_names_and_labels_are_the_contracts(
    run: Callable[..., Exporter], config: Callable[..., Path]
) -> None:
    """Of a whole week every metric is there, and tokens carry the labels that dashboards ask for."""
    settings = {
        "usage": {"start": "7d"},
        "credits": [{"date": f"{datetime.now(UTC):%Y-%m-%d}", "amount": 1000}],
    }
    exporter = run("-c", config(**settings))
    # The limits of rates and the times of keys are opt-in, and have tests of their own.
    # In the first hour of a day no whole hour is over, so no cost can be unusual.
    optional = ("openai.api.rate_limit", "openai.api.key_", "openai.api.cost_unusual")
    wanted = {
        item.prometheus
        for item in INSTRUMENTS.values()
        if item.name.startswith("openai.api.") and not item.name.startswith(optional)
    }
    seen = exporter.process.until(
        lambda: scrape if names(scrape := exporter.scrape()) >= wanted else None, "every metric", 60
    )
    tokens = [
        dict(labels)
        for name, labels in seen
        if name == "openai_api_tokens_total" and dict(labels)["operation"] == "completions"
    ]
    assert set().union(*tokens) == {
        "organization",
        "model",
        "operation",
        "project_id",
        "project_name",
        "user_id",
        "api_key_id",
        "api_key_name",
        "batch",
        "token_type",
    }
    costs = [dict(labels) for name, labels in seen if name == "openai_api_daily_cost"]
    assert set().union(*costs) == {
        "organization",
        "date",
        "project_id",
        "project_name",
        "line_item",
        "organization_id",
        "currency",
    }
    assert {labels["organization_id"] for labels in costs} == {World(SEED).company.id}
    assert {labels["token_type"] for labels in tokens} == set(TYPES)
    assert {labels["batch"] for labels in tokens} == {"true", "false"}


def test_two_organizations_are_polled_side_by_side(
    run: Callable[..., Exporter], config: Callable[..., Path], simulator: Simulator
) -> None:
    """A second organization with a wrong key does not disturb the first, and each has its own name
    on its series.
    """
    organizations = [
        {"name": "good", "admin_key": KEY},
        {"name": "bad", "admin_key": "sk-admin-wrong"},
    ]
    exporter = run(
        "-c",
        config(organizations=[one | {"base_url": simulator.base_url} for one in organizations]),
        ready="/healthz",
    )
    exporter.process.until(
        lambda: exporter.sum("openai_api_up", organization="good") > 10,
        "every source of the good one",
    )
    exporter.process.until(
        lambda: exporter.sum("openai_api_tokens_total", organization="good") > 0, "its tokens"
    )
    assert exporter.sum("openai_api_up", organization="bad") == 0
    assert exporter.sum("openai_api_tokens_total", organization="bad") == 0
    assert get(f"{exporter.url}/readyz")[0] == 503


def test_a_killed_exporter_goes_on_where_it_was(
    run: Callable[..., Exporter], config: Callable[..., Path]
) -> None:
    """After kill -9 and a restart on the same state no counter is lower than it was."""
    settings = config()
    first = run("-c", settings)
    before = first.process.until(
        lambda: scrape if _counters(scrape := first.scrape()) else None, "counters"
    )
    first.process.kill()
    after = run("-c", settings).scrape()
    assert {key for key, value in _counters(before).items() if after.get(key, -1) < value} == set()


def _counters(scrape: Samples) -> Samples:
    return {key: value for key, value in scrape.items() if key[0].endswith("_total") and value}


TROUBLE = [
    {"kind": "rate_limit", "probability": 0.1, "retry_after": 1}, {"kind": "error", "probability": 0.1},
    {"kind": "disconnect", "probability": 0.05}, {"kind": "cut", "probability": 0.05}, {"kind": "html", "probability": 0.05},
    {"kind": "duplicate_rows", "probability": 0.2}, {"kind": "slow", "probability": 0.1, "seconds": 1},
]  # fmt: skip


@pytest.mark.real
@pytest.mark.long
def test_a_bad_evening_costs_nothing(
    surroundings: Surroundings, prometheus: Callable[..., Prometheus], config: Callable[..., Path]
) -> None:
    """After minutes of faults and six kill -9 nothing is lost, nothing counted twice, and no
    counter ever fell.
    """
    simulator = Simulator(surroundings)
    started = [simulator.process]
    port = free_port()
    command: list[str | Path] = [
        COMMAND,
        "run",
        "-c",
        config(prometheus={"host": "127.0.0.1", "port": port}),
    ]
    environment = surroundings.env(OPENAI_ADMIN_KEY=KEY, OPENAI_BASE_URL=simulator.base_url)

    def start() -> Process:
        started.append(Process(command, surroundings.home / "run.log", environment))
        return started[-1]

    try:
        simulator.post("faults", {"faults": TROUBLE})
        server = prometheus([f"127.0.0.1:{port}"])
        for _ in range(6):
            victim = start()
            time.sleep(25)
            assert victim.running, victim.output
            victim.kill()
        simulator.post("faults", {"faults": []})
        start().until(
            lambda: agree(server, simulator),
            "Prometheus and the simulated organization to agree",
            120,
        )
        counters = [item.prometheus for item in INSTRUMENTS.values() if item.kind == "counter"]
        assert {
            name: fell for name in counters if (fell := server.query(f"resets({name}[10m]) > 0"))
        } == {}
    finally:
        for process in started:
            process.kill()


# --- starting and stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_told(run: Callable[..., Exporter], number: int) -> None:
    """SIGTERM and SIGINT end `run` with 0, soon."""
    exporter = run()
    exporter.process.signal(number)
    assert exporter.process.wait(10) == 0, exporter.process.output


def test_a_dead_collector_does_not_keep_it(
    run: Callable[..., Exporter], config: Callable[..., Path]
) -> None:
    """With nobody at the OTLP endpoint, SIGTERM still ends `run` with 0 within 10 s, and scrapes go
    on until then.
    """
    exporter = run(
        "-c",
        config(otlp={"interval": "1s"}),
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}",
    )
    time.sleep(2)
    assert exporter.sum("openai_api_up") > 10
    exporter.process.signal(signal.SIGTERM)
    assert exporter.process.wait(10) == 0, exporter.process.output


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_silent_collector_does_not_keep_it(
    protocol: str, run: Callable[..., Exporter], config: Callable[..., Path], silence: str
) -> None:
    """A Collector that accepts and never answers delays neither polls nor scrapes nor the end."""
    exporter = run(
        "-c",
        config(otlp={"interval": "1s", "protocol": protocol}),
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{silence}",
    )

    def polled() -> float:
        return exporter.sum("openai_api_last_success_seconds", source="usage/completions")

    time.sleep(2)
    before = polled()
    exporter.process.until(lambda: polled() > before, "the next poll", 10)
    exporter.process.signal(signal.SIGTERM)
    assert exporter.process.wait(10) == 0, exporter.process.output


def test_run_once_polls_and_ends(surroundings: Surroundings, simulator: Simulator) -> None:
    """`run --once` ends with 0 after one full poll."""
    done = surroundings.call(
        "run", "--once", OPENAI_ADMIN_KEY=KEY, OPENAI_BASE_URL=simulator.base_url
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.real
def test_run_once_exports_once(
    surroundings: Surroundings, simulator: Simulator, collector: Callable[..., Collector]
) -> None:
    """`run --once` has sent its numbers to the Collector when it ends."""
    receiver = collector()
    done = surroundings.call(
        "run",
        "--once",
        OPENAI_ADMIN_KEY=KEY,
        OPENAI_BASE_URL=simulator.base_url,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{receiver.grpc}",
    )
    assert done.returncode == 0, done.stderr
    receiver.process.until(
        lambda: "openai_api_tokens_total" in names(samples(receiver.scrape())), "what was sent"
    )


def test_help_is_quick(surroundings: Surroundings) -> None:
    """`--help` takes less than 0.3 s of CPU."""
    surroundings.call("--help")  # the first one may have to compile

    def used() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert surroundings.call("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(used() for _ in range(3)) < 0.3


# --- trouble: exit codes and sentences


def _said(text: str, *parts: str) -> None:
    assert "Traceback" not in text
    assert [part for part in parts if part not in text] == [], text


def test_a_port_in_use_ends_it(surroundings: Surroundings, simulator: Simulator) -> None:
    """`run` on a port that somebody else has ends with 1 and names the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = surroundings.call(
            "run", "--listen", address, OPENAI_ADMIN_KEY=KEY, OPENAI_BASE_URL=simulator.base_url
        )
    assert done.returncode == 1
    _said(done.stderr, address)


def test_no_key_is_wrong_configuration(surroundings: Surroundings) -> None:
    """`run` without any key ends with 2 and names OPENAI_ADMIN_KEY."""
    done = surroundings.call("run")
    assert done.returncode == 2
    _said(done.stderr, "OPENAI_ADMIN_KEY")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("usage: [", ["config.yaml"]),
        ("usage: {intervall: 1s}", ["usage.intervall", "interval"]),
        ("usage: {interval: fast}\ncosts: {days: 0}\n", ["usage.interval", "costs.days"]),
        ("prometheus: {port: 70000}", ["prometheus.port"]),
        ("- a list", ["config.yaml"]),
    ],
)
def test_a_wrong_configuration_is_told_whole(
    surroundings: Surroundings, text: str, said: list[str]
) -> None:
    """Every problem of a file is said at once with its path, and the exit code is 2."""
    (surroundings.home / "config.yaml").write_text(text)
    done = surroundings.call("run", "-c", surroundings.home / "config.yaml", OPENAI_ADMIN_KEY=KEY)
    assert done.returncode == 2, done.stderr
    _said(done.stderr, *said)


def test_a_missing_configuration_is_said(surroundings: Surroundings) -> None:
    """A file that is not there ends `run` with 2 and its name."""
    done = surroundings.call("run", "-c", "nowhere.yaml", OPENAI_ADMIN_KEY=KEY)
    assert done.returncode == 2
    _said(done.stderr, "nowhere.yaml")


@pytest.mark.parametrize(
    "arguments", [("fly",), ("run", "--fast"), ("run", "--listen", "nonsense")]
)
def test_wrong_usage_ends_with_2(surroundings: Surroundings, arguments: tuple[str, ...]) -> None:
    """Unknown verbs, options and values end with 2."""
    assert surroundings.call(*arguments, OPENAI_ADMIN_KEY=KEY).returncode == 2


def test_a_foreign_state_file_is_left_alone(
    surroundings: Surroundings, simulator: Simulator
) -> None:
    """A state file that is something else ends `run` with 1, and not a byte of it changes."""
    (surroundings.home / "state.db").write_text("my diary\n" * 100)
    (surroundings.home / "config.yaml").write_text(
        f"state: {{path: {surroundings.home / 'state.db'}}}"
    )
    done = surroundings.call(
        "run",
        "-c",
        "config.yaml",
        "--listen",
        f"127.0.0.1:{free_port()}",
        OPENAI_ADMIN_KEY=KEY,
        OPENAI_BASE_URL=simulator.base_url,
    )
    assert done.returncode == 1, done.stderr
    _said(done.stderr, "state.db")
    assert (surroundings.home / "state.db").read_text() == "my diary\n" * 100


def test_one_state_has_one_exporter(
    run: Callable[..., Exporter], surroundings: Surroundings, simulator: Simulator
) -> None:
    """A second exporter on the same state ends with 1 and says who has it; the first goes on."""
    first = run()
    done = surroundings.call(
        "run",
        "--listen",
        f"127.0.0.1:{free_port()}",
        OPENAI_ADMIN_KEY=KEY,
        OPENAI_BASE_URL=simulator.base_url,
    )
    assert done.returncode == 1, done.stderr
    _said(done.stderr)
    assert first.sum("openai_api_up") > 10


def test_a_wrong_key_does_not_end_it(
    run: Callable[..., Exporter], config: Callable[..., Path]
) -> None:
    """With a wrong key `run` goes on, turns openai.api.up to 0, is not ready, says so without the
    key, and does not flood the log.
    """
    exporter = run("-c", config(), ready="/healthz", OPENAI_ADMIN_KEY="sk-admin-a-wrong-one")
    exporter.process.until(lambda: "openai_api_up" in names(exporter.scrape()), "openai_api_up")
    time.sleep(5)
    assert {value for (name, _), value in exporter.scrape().items() if name == "openai_api_up"} == {
        0.0
    }
    assert get(f"{exporter.url}/readyz")[0] == 503
    output = exporter.process.output
    assert "sk-admin-a-wrong-one" not in output
    assert 1 <= len(output.splitlines()) < 40, output
    _said(output, "401")
    assert exporter.process.stop() == 0


def test_a_state_that_cannot_be_written_is_not_ready(
    run: Callable[..., Exporter], config: Callable[..., Path], tmp_path: Path
) -> None:
    """/readyz looks at the state itself, long before a poll has something to write."""
    folder = tmp_path / "state"
    exporter = run("-c", config(usage={"interval": "1h"}, state={"path": str(folder / "state.db")}))
    folder.rename(tmp_path / "elsewhere")
    status, said = get(f"{exporter.url}/readyz")
    assert (status, said.count("was deleted or moved away")) == (503, 1), said
    (tmp_path / "elsewhere").rename(folder)
    assert get(f"{exporter.url}/readyz")[0] == 200


def test_a_deleted_state_is_not_ready(
    run: Callable[..., Exporter], config: Callable[..., Path], tmp_path: Path
) -> None:
    """When the state and its lock file are deleted while it runs, /readyz says 503 and why, and
    the process ends with 0 when told.
    """
    path = tmp_path / "state" / "state.db"
    exporter = run("-c", config(usage={"interval": "1h"}, state={"path": str(path)}))
    path.unlink()
    path.with_name("state.db.lock").unlink()
    status, said = get(f"{exporter.url}/readyz")
    assert status == 503
    assert f"the state file {path} was deleted" in said
    assert exporter.process.stop() == 0


def test_an_unreachable_host_does_not_end_it(
    run: Callable[..., Exporter], config: Callable[..., Path]
) -> None:
    """With nobody at the base URL `run` goes on with openai.api.up at 0, and ends with 0 when told."""
    exporter = run(
        "-c",
        config(api={"retries": 1}),
        ready="/healthz",
        OPENAI_BASE_URL=f"http://127.0.0.1:{free_port()}/v1",
    )
    exporter.process.until(lambda: "openai_api_up" in names(exporter.scrape()), "openai_api_up", 60)
    assert {value for (name, _), value in exporter.scrape().items() if name == "openai_api_up"} == {
        0.0
    }
    exporter.process.signal(signal.SIGTERM)
    assert exporter.process.wait(10) == 0


@pytest.mark.parametrize("base", ["http://127.0.0.1:1/v1", "wrong-key"])
def test_a_failed_run_once_ends_with_1(
    surroundings: Surroundings, simulator: Simulator, base: str, config: Callable[..., Path]
) -> None:
    """`run --once` ends with 1 when the key is refused, and when nobody answers."""
    wrong = base == "wrong-key"
    done = surroundings.call(
        "run",
        "--once",
        "-c",
        config(api={"retries": 0}),
        OPENAI_ADMIN_KEY="sk-admin-a-wrong-one" if wrong else KEY,
        OPENAI_BASE_URL=simulator.base_url if wrong else base,
    )
    assert done.returncode == 1, done.stderr
    _said(done.stderr)
    assert "sk-admin-a-wrong-one" not in done.stdout + done.stderr


# --- the other verbs


def test_check_says_ok(surroundings: Surroundings, simulator: Simulator) -> None:
    """`check` ends with 0 for a good key and a good configuration, and never shows the key."""
    done = surroundings.call("check", OPENAI_ADMIN_KEY=KEY, OPENAI_BASE_URL=simulator.base_url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert KEY not in done.stdout + done.stderr
    assert "ok" in done.stdout


def test_check_says_fail(surroundings: Surroundings, simulator: Simulator) -> None:
    """`check` ends with 1 for a wrong key; `check --offline` does not ask, and ends with 0."""
    wrong = {"OPENAI_ADMIN_KEY": "sk-admin-a-wrong-one", "OPENAI_BASE_URL": simulator.base_url}
    done = surroundings.call("check", **wrong)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "fail" in done.stdout
    assert surroundings.call("check", "--offline", **wrong).returncode == 0


def test_config_show_masks_secrets(surroundings: Surroundings) -> None:
    """`config show` prints the effective configuration without the key; `config schema` is JSON
    Schema.
    """
    done = surroundings.call("config", "show", OPENAI_ADMIN_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert KEY not in done.stdout
    assert yaml.safe_load(done.stdout)["prometheus"]["port"] == 9185
    assert "properties" in json.loads(surroundings.call("config", "schema").stdout)


def test_metrics_lists_the_catalogue(surroundings: Surroundings) -> None:
    """`metrics` names every instrument in both worlds, our own health included."""
    text = surroundings.call("metrics", "--format", "json").stdout
    assert json.loads(text)
    _said(text, "openai.api.tokens", "openai_api_tokens_total", "otel_openai_usage_build_info")


def test_the_demo_needs_no_key(surroundings: Surroundings) -> None:
    """`demo` prints the addresses to open, shows a simulated organization's tokens, and stops when
    told.
    """
    port = free_port()
    process = Process(
        [COMMAND, "demo", "--port", str(port)], surroundings.home / "demo.log", surroundings.env()
    )
    try:
        process.until(
            lambda: (
                "openai_api_tokens_total"
                in names(samples(get(f"http://127.0.0.1:{port}/metrics")[1]))
            ),
            "tokens",
            60,
        )
        assert f":{port}" in process.output
        process.signal(signal.SIGTERM)
        assert process.wait(10) == 0, process.output
    finally:
        process.kill()


def test_metrics_are_served_while_scraped_by_many(run: Callable[..., Exporter]) -> None:
    """Twenty scrapes at once all get the whole page."""
    exporter = run()
    pages: list[set[str]] = []
    threads = [
        threading.Thread(target=lambda: pages.append(names(exporter.scrape()))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pages) == 20
    assert all(page == pages[0] and "openai_api_up" in page for page in pages)
