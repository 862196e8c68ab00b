"""The state in a PostgreSQL database: one writer, through restarts of the database, with sentences
for what can be wrong.
"""

import hashlib
import json
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from otel_openai_usage.composition.stores import is_empty, open_writer, queries_opener
from otel_openai_usage.config import DatabaseLocation, load
from otel_openai_usage.errors import ConfigError, StateError, StateInUse
from otel_openai_usage.simulator.world import World
from otel_openai_usage.storage.postgres.migrations import MIGRATIONS
from otel_openai_usage.storage.postgres.store import Store, safety_warnings
from tests.conservation.rig import HASTE, HOUR, MONDAY, Life, Options
from tests.real.installed import COMMAND, KEY, Simulator, Surroundings
from tests.real.postgres import USER, Pgbouncer, Postgres
from tests.real.processes import Process, free_port, get, wait_for

RELEASED = ("a9bef0e45e8e", "15b7f71387df", "5f442708ffa0", "95bdf93eb291")
"""The first digits of the hash of each released migration."""


def test_a_released_migration_never_changes() -> None:
    """Every migration is as it was released."""
    found = [hashlib.sha256(text.encode()).hexdigest() for text in MIGRATIONS]
    assert len(found) == len(RELEASED), "append the hash of the new migration to RELEASED"
    assert all(map(str.startswith, found, RELEASED)), found


# --- one writer


def test_a_second_writer_is_refused(postgres: Postgres) -> None:
    """Whoever comes second ends with a sentence that names the first, and does no harm."""
    location = postgres.location(lease=0.5)
    first = Store(location)
    with pytest.raises(StateInUse, match="is in use by another otel-openai-usage"):
        Store(location)
    first.set_note("still", "mine")
    first.close()
    second = Store(location)
    assert second.note("still") == "mine"
    second.close()


def test_a_frozen_writer_is_replaced_and_commits_nothing(postgres: Postgres) -> None:
    """A writer that is silent for its lease loses the state; when it wakes, it writes nothing."""
    location = postgres.location(lease=0.5)
    frozen = Store(location)
    frozen._stop()
    new = Store(location)
    with pytest.raises(StateInUse):
        frozen.set_note("late", "write")
    assert new.note("late") is None
    new.close()
    frozen.abandon()


def test_two_states_share_a_database(postgres: Postgres) -> None:
    """Each schema is a state of its own."""
    stores = [Store(postgres.location()), Store(postgres.location())]
    for number, store in enumerate(stores):
        store.set_note("number", str(number))
    assert [store.note("number") for store in stores] == ["0", "1"]
    assert stores[0].instance_id != stores[1].instance_id
    for store in stores:
        store.close()


def test_readers_need_select_only(postgres: Postgres) -> None:
    """A user that may only SELECT reads the state, also while it is written."""
    location = postgres.location()
    store = Store(location)
    schema = location.url.rpartition("%3D")[2]
    postgres.execute("DROP ROLE IF EXISTS reader")
    postgres.execute("CREATE ROLE reader LOGIN")
    postgres.execute(f"GRANT USAGE ON SCHEMA {schema} TO reader")
    postgres.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO reader")
    reader = replace(location, url=location.url.replace(f"{USER}@", "reader@"))
    with queries_opener(reader)() as queries:
        before = queries.version()
        store.set_note("a", "b")
        assert queries.version() > before
        assert queries.totals_disagreeing() is None
    store.close()
    postgres.execute("DROP OWNED BY reader; DROP ROLE reader")


# --- the database goes away


def test_a_commit_whose_answer_is_lost_counts_once(own_postgres: Postgres) -> None:
    """If the server ends just after a commit, the writer finds out that it was made."""
    location = own_postgres.location()
    store = Store(location)
    execute = store._db.connection.execute

    def broken(query: str, *rest: object) -> object:
        result = execute(query, *rest)  # type: ignore[call-overload]
        if query == "COMMIT":
            store._db.connection.close()
            execute("SELECT 1")
        return result

    store._db.connection.execute = broken  # type: ignore[method-assign, assignment]
    store.set_note("made", "once")
    assert store.note("made") == "once"
    store.close()


def test_a_writer_goes_on_after_a_restart_of_the_server(own_postgres: Postgres) -> None:
    """While the server is away calls fail with a sentence; afterwards the same writer goes on."""
    store = Store(own_postgres.location())
    store.set_note("before", "1")
    own_postgres.kill()
    with pytest.raises(StateError, match="everything waits and goes on when it is back"):
        store.set_note("during", "1")
    was_up = store.is_up
    assert not was_up
    assert "goes on" in (store.why_unwritable() or "")
    own_postgres.start()
    assert wait_for(lambda: store.why_unwritable() is None, "the state")
    store.set_note("after", "1")
    assert [store.note(key) for key in ("before", "during", "after")] == ["1", None, "1"]
    assert store.is_up
    store.close()


@pytest.fixture
def start(surroundings: Surroundings, simulator: Simulator) -> Iterator[Callable[..., Process]]:
    """Start the command with settings, and stop it in the end."""
    started: list[Process] = []

    def begin(verb: str, settings: object, *options: str) -> Process:
        file = surroundings.home / "config.yaml"
        file.write_text(yaml.safe_dump(settings))
        command: list[str | Path] = [COMMAND, verb, "-c", file, *options]
        environment = surroundings.env(OPENAI_ADMIN_KEY=KEY, OPENAI_BASE_URL=simulator.base_url)
        started.append(Process(command, surroundings.home / f"{verb}.log", environment))
        return started[-1]

    yield begin
    for process in started:
        process.stop()


def test_run_survives_a_crash_of_the_server(
    own_postgres: Postgres, start: Callable[..., Process], surroundings: Surroundings
) -> None:
    """While the database is away usage stays visible, events get 503 with Retry-After and
    `state_up` is 0. When it is back, the same process goes on, and everything is exact.
    """
    location = own_postgres.location()
    port = free_port()
    events = free_port()
    settings = {
        "state": {"url": location.url, "lease": "20s"},
        "api": {"requests_per_minute": 60000},
        "usage": {"interval": "1s"},
        "events": {"enabled": True, "host": "127.0.0.1", "port": events},
    }
    process = start("run", settings, "--listen", f"127.0.0.1:{port}")
    process.ready(f"http://127.0.0.1:{port}/readyz")

    def page() -> str:
        return get(f"http://127.0.0.1:{port}/metrics")[1]

    def post(number: int) -> int:
        event = {
            "specversion": "1.0",
            "id": str(number),
            "source": "test",
            "type": "tokens",
            "subject": "acme",
            "data": {"model": "gpt-5", "input": 1},
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{events}/api/v1/events",
            json.dumps(event).encode(),
            {"Content-Type": "application/cloudevents+json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code if error.headers["Retry-After"] else 0

    assert post(1) == 204
    wait_for(lambda: "openai_api_tokens_total" in page(), "tokens")
    own_postgres.kill()
    assert post(2) == 503
    wait_for(lambda: "\notel_openai_usage_state_up 0" in page(), "state_up 0")
    assert "openai_api_tokens_total" in page()
    own_postgres.start()
    assert wait_for(lambda: post(2) == 204, "an event")
    assert post(1) == 204
    wait_for(lambda: "\notel_openai_usage_state_up 1" in page(), "state_up 1")
    process.stop()
    with queries_opener(location)() as queries:
        assert sum(row.requests for row in queries.usage(0, 2**40, record="metered")) == 2
        assert queries.totals_disagreeing() is None
    info = surroundings.call("state", "info", "-c", surroundings.home / "config.yaml")
    assert "in use          no" in info.stdout
    checked = surroundings.call("verify", "-c", surroundings.home / "config.yaml")
    assert "Traceback" not in checked.stderr


async def test_trouble_through_pgbouncer_ends_exact(postgres: Postgres) -> None:
    """Through pgbouncer in transaction mode an exporter is exact, with kills, as everywhere."""
    postgres.execute("CREATE DATABASE pooled")
    pooler = Pgbouncer(postgres)
    location = pooler.location("pooled")
    try:
        wait_for(lambda: _answers(location), "pgbouncer")
        life = Life(
            location,
            World.tiny(3, lateness=HASTE),
            endpoints=("completions", "costs"),
            failure_log=0.1,
            options=Options(settle=HOUR, start=MONDAY),
        )
        await life.live(8 * HOUR, kills=0.05)
        await life.end()
    finally:
        pooler.close()
        postgres.execute("DROP DATABASE pooled WITH (FORCE)")


def _answers(location: DatabaseLocation) -> bool:
    try:
        return is_empty(location)
    except StateError:
        return False


# --- bad input


def test_passwords_are_never_shown() -> None:
    """The location of a state is shown without its password, wherever that stands."""
    url = "postgresql://me:hush@a:5432,b:5433/usage?sslmode=require&password=hush&user=me"
    location = DatabaseLocation(url)
    assert str(location) == "postgresql://me@a:5432,b:5433/usage?sslmode=require&user=me"
    assert "hush" not in repr(location)


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("postgresql://me@127.0.0.1/usage", False),
        ("postgresql:///usage", False),
        ("postgresql:///usage?host=/run/postgresql", False),
        ("postgresql://me@[::1]:5432/usage", False),
        ("postgresql://me@db:5432/usage", True),
        ("postgresql://me@db/usage?sslmode=require", True),
        ("postgresql://me@localhost,db/usage", True),
        ("postgresql://me@db/usage?sslmode=verify-full", False),
    ],
)
def test_a_server_elsewhere_without_verified_tls_is_a_warning(url: str, warned: bool) -> None:
    """Beyond loopback everything below verify-full is a warning."""
    assert bool(list(safety_warnings(url))) == warned


def test_path_and_url_in_one_place_are_an_error(tmp_path: Path) -> None:
    """The file wins over the environment, and that is a warning; both in one file are an error."""
    file = tmp_path / "config.yaml"
    env = {"OPENAI_ADMIN_KEY": KEY, "OTEL_OPENAI_USAGE_STATE_URL": "postgresql://db/usage"}
    assert load(None, env).state.url is not None
    file.write_text("state: {path: /x/y.db}")
    loaded = load(file, env)
    assert loaded.state.url is None
    assert any("OTEL_OPENAI_USAGE_STATE_URL is not followed" in one for one in loaded.warnings)
    file.write_text("state: {path: /x/y.db, url: 'postgresql://db/usage'}")
    with pytest.raises(ConfigError, match=r"state.url: state.path is set, too"):
        load(file, {"OPENAI_ADMIN_KEY": KEY})
    file.write_text("state: {url: 'mysql://me:hush@db/usage'}")
    with pytest.raises(ConfigError, match="expected postgresql://") as failure:
        load(file, {"OPENAI_ADMIN_KEY": KEY})
    assert "hush" not in str(failure.value)


def _wrong(postgres: Postgres, kind: str) -> DatabaseLocation:  # noqa: C901, PLR0911 - a table
    """A location that cannot be used."""
    good = postgres.location()
    schema = good.url.rpartition("%3D")[2]
    match kind:
        case "no such database":
            return DatabaseLocation(postgres.url(database="nowhere"))
        case "no such schema":
            return DatabaseLocation(postgres.url("nowhere"))
        case "nobody listens":
            return DatabaseLocation(f"postgresql://{USER}:hush@127.0.0.1:{free_port()}/postgres")
        case "not a number":
            return DatabaseLocation("postgresql://me:hush@localhost:x/usage")
        case "unknown parameter":
            return DatabaseLocation("postgresql://me@localhost/usage?colour=red")
        case "no right to create":
            postgres.execute("DROP ROLE IF EXISTS poor")
            postgres.execute("CREATE ROLE poor LOGIN")
            postgres.execute(f"GRANT USAGE ON SCHEMA {schema} TO poor")
            return DatabaseLocation(good.url.replace(f"{USER}@", "poor@"))
        case "read-only":
            return DatabaseLocation(f"{good.url}%20-cdefault_transaction_read_only%3Don")
        case "another program":
            postgres.execute(f"CREATE TABLE {schema}.readings (x INT)")
            return good
        case "newer version":
            Store(good).close()
            postgres.execute(f"INSERT INTO {schema}.otel_openai_usage_migrations VALUES (999)")
            return good
        case "password file":
            return replace(good, password_file=Path("/nowhere/password"))
        case "TLS":
            return DatabaseLocation(f"{good.url}&sslmode=verify-full")
    raise AssertionError(kind)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("no such database", 'database "nowhere" does not exist'),
        ("no such schema", "create the schema that search_path in state.url names"),
        ("nobody listens", "check state.url, and that the server runs"),
        ("not a number", "check state.url"),
        ("unknown parameter", "invalid URI query parameter"),
        ("no right to create", "grant the user CREATE"),
        ("read-only", "read-only transaction"),
        ("another program", "tables of another program"),
        ("newer version", "install a newer otel-openai-usage"),
        ("password file", "check state.password_file"),
        ("TLS", "check sslmode and sslrootcert"),
    ],
)
def test_what_cannot_be_used_is_a_sentence(postgres: Postgres, kind: str, said: str) -> None:
    """Each mistake is one sentence, with the location and without a password."""
    location = _wrong(postgres, kind)
    with pytest.raises(StateError) as failure:
        open_writer(location)
    assert said in str(failure.value)
    assert "hush" not in str(failure.value)
    assert "\n" not in str(failure.value)
