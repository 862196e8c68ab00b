"""The verbs `state …`: what the state is, and what to do about it."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from otel_openai_usage.cli.group import InOrder, cli, command, config_option, load_settings


@cli.group("state", cls=InOrder)
def state() -> None:
    """Look at the state file, back it up, bring it back, and accept what it lost.

    \b
      otel-openai-usage state info
      otel-openai-usage state backup /backups/usage.db
    """


@command(state, "info")
@config_option
def info(file: Path | None) -> int:
    """Say where the state is, since when it counts, whose it is, and whether anything is missing.

    It changes nothing, and the exporter may be running. Ends with 1 if there is no state, or it
    cannot be read.

    \b
      otel-openai-usage state info -c otel-openai-usage.yaml
    """
    from otel_openai_usage.composition.stores import describe
    from otel_openai_usage.config import state_location

    for heading, text in describe(state_location(load_settings(file), os.environ)).lines:
        click.echo(f"{heading:<16}{text}")
    return 0


@command(state, "accept")
@config_option
def accept(file: Path | None) -> int:
    """Accept what is missing in the state, so that no start warns of it any more.

    Totals that are not the sum of their rows are set to that sum; what was shown never falls. A
    running exporter takes it over within seconds. Ends with 0 also if there is nothing to accept.

    \b
      otel-openai-usage state accept
    """
    from otel_openai_usage.config import state_file
    from otel_openai_usage.errors import StateInUse
    from otel_openai_usage.storage.sqlite.losses import request_acceptance
    from otel_openai_usage.storage.sqlite.state_info import describe
    from otel_openai_usage.storage.sqlite.store import Store

    found = describe(state_file(load_settings(file), os.environ))
    try:
        store = Store(found.path)
    except StateInUse:
        if not found.losses:
            click.echo("nothing to accept: no loss is reported")
            return 0
        request_acceptance(found.path)
        click.echo("accepted; the running exporter takes it over within seconds")
        return 0
    try:
        accepted, _ = store.accept()
    finally:
        store.close()
    for loss in accepted:
        click.echo(f"accepted: {loss.details}")
    if not accepted:
        click.echo("nothing to accept: no loss is reported")
    return 0


@command(state, "backup")
@config_option
@click.option("--replace", is_flag=True, help="Replace FILE if there is one.")
@click.argument("target", type=click.Path(path_type=Path), metavar="FILE")
def backup(file: Path | None, target: Path, replace: bool) -> int:
    """Write a consistent copy of the state to FILE. The exporter may be running.

    FILE is an SQLite state, also where the state is in a database. It appears
    when the copy is whole and checked. One that is there is left as it is, and the command ends
    with 1, unless --replace is given.

    \b
      otel-openai-usage state backup /backups/usage-2026-11-26.db
    """
    from otel_openai_usage.composition import stores
    from otel_openai_usage.config import DatabaseLocation, state_location
    from otel_openai_usage.storage.sqlite.backup import back_up
    from otel_openai_usage.storage.sqlite.start_check import at

    location = state_location(load_settings(file), os.environ)
    if isinstance(location, DatabaseLocation):
        with _progress() as progress:
            stores.back_up_database(location, target, progress, replace=replace)
        click.echo(f"wrote {target}: a state file with all that is in {location}")
        return 0
    made = back_up(location, target, replace=replace)
    here = made.position
    click.echo(f"wrote {made.path}: {made.size} bytes, commit {here.number} at {at(here.time)}")
    return 0


@command(state, "restore")
@config_option
@click.argument("source", type=click.Path(path_type=Path), metavar="FILE")
def restore(file: Path | None, source: Path) -> int:
    """Put the copy FILE in the place of the state. The exporter must be stopped.

    FILE is checked first, and stays. The state that was there is kept beside it (in a database it is
    replaced, completely or not at all). The next start
    says how much is missing, and reads again what OpenAI still reports of that time; afterwards use
    `state accept`.

    \b
      otel-openai-usage state restore /backups/usage-2026-11-26.db
    """
    import time

    from otel_openai_usage.composition import stores
    from otel_openai_usage.config import DatabaseLocation, state_location
    from otel_openai_usage.storage.sqlite.backup import missing_after
    from otel_openai_usage.storage.sqlite.backup import restore as put_back
    from otel_openai_usage.storage.sqlite.start_check import at

    path = state_location(load_settings(file), os.environ)
    if isinstance(path, DatabaseLocation):
        with stores.queries_opener(source)() as queries:
            warning = queries.totals_disagreeing()
        with _progress() as progress:
            stores.copy(source, path, progress, replace=True)
        click.echo(f"restored {path} from {source}; what was there before is gone")
        if warning:
            click.echo(f"warning: {warning}", err=True)
        return 0
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    made = put_back(path, source, stamp=stamp)
    here = made.position
    click.echo(f"restored {made.path}: commit {here.number} at {at(here.time)}")
    if made.aside:
        click.echo(f"the state that was there is {made.aside}")
    if made.warning:
        click.echo(f"warning: {made.warning}", err=True)
    if missing := missing_after(made):
        click.echo(f"{missing}; the next start reports it")
    return 0


@command(state, "copy")
@config_option
@click.option(
    "--to",
    "target",
    required=True,
    metavar="PATH_OR_URL",
    help="A new state file, or postgresql://user@host/database with an empty schema.",
)
def copy(file: Path | None, target: str) -> int:
    """Copy the whole state to another store: from a file to a database, or back.

    The exporter must be stopped: what it counted later would be missing in the copy. The copy is
    complete and has the same sums, or there is none. Afterwards set state.url (or state.path) to
    it, and counters continue. Passwords: PGPASSWORD or PGPASSFILE.

    \b
      otel-openai-usage state copy --to postgresql://usage@db/usage?sslmode=verify-full
    """
    from otel_openai_usage.composition import stores
    from otel_openai_usage.config import location_of, state_location
    from otel_openai_usage.errors import StateInUse

    source = state_location(load_settings(file), os.environ)
    if stores.describe(source).running:
        raise StateInUse(
            f"copied {source}: an exporter uses it, and what it counts from now on would be missing"
            " in the copy; stop it first"
        )
    place = location_of(target)
    with _progress() as progress:
        stores.copy(source, place, progress)
    click.echo(f"copied {source} to {place}; the sums are the same")
    return 0


@command(state, "forget")
@config_option
@click.option(
    "--subject",
    required=True,
    metavar="X",
    help="The customer, as events name it or as attributes.hash shows it.",
)
def forget(file: Path | None, subject: str) -> int:
    """Move all that is stored of a customer to `(forgotten)`. Every sum stays what it is.

    The exporter must be stopped: it has the customer in memory. Backups and copies that were made
    before still have it, and so do Prometheus and other backends. Ends with 1 if the customer is
    not known.

    \b
      otel-openai-usage state forget --subject customer-1
    """
    from contextlib import closing

    from otel_openai_usage.composition import stores
    from otel_openai_usage.config import state_location
    from otel_openai_usage.domain.allocation import FORGOTTEN
    from otel_openai_usage.domain.pseudonyms import Pseudonyms
    from otel_openai_usage.errors import StateError, StateInUse

    place = state_location(load_settings(file), os.environ)
    if stores.describe(place).running:
        raise StateInUse(
            f"forgot a customer in {place}: an exporter uses it, and would write the customer again;"
            " stop it first"
        )
    with closing(stores.open_writer(place)) as store:
        pseudonyms = Pseudonyms(frozenset({"subject"}), store.hash_key())

        def is_meant(customer: str) -> bool:
            is_named = subject in (customer, pseudonyms.of("subject", customer))
            return is_named and customer != FORGOTTEN

        found = store.forget(is_meant)
    if not found:
        raise StateError(f"forgot a customer in {place}: nothing is stored of {subject!r}")
    click.echo(f"moved {subject!r} to {FORGOTTEN}; all sums are the same")
    return 0


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """Says on a terminal how many rows were copied."""
    is_terminal = sys.stderr.isatty()

    def tell(rows: int) -> None:
        if is_terminal:
            click.echo(f"\r{rows:,} rows", nl=False, err=True)

    yield tell
    if is_terminal:
        click.echo("\r\033[K", nl=False, err=True)
