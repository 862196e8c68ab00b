"""Polls names and spend limits. Both are exported, but have no rows and no totals."""

import logging
from collections.abc import Iterable, Mapping, Sequence

from otel_openai_usage.domain.model import NO_NAMES, Limit, Names
from otel_openai_usage.domain.series_marks import HighWaterMark, OverflowMember
from otel_openai_usage.domain.source_state import SourceState, Status
from otel_openai_usage.engine.ports import LimitSource, NameSource
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.errors import MissingScope, Rejected, SourceError

log = logging.getLogger(__name__)


WRITE_PARTLY_EVERY = 2.0
"""Seconds between two writes of names while a long list is being read."""
LOOK_UP_INTERVAL = 5.0
"""Seconds between two checks for ids without a name."""


class Shown:
    """Shows the status of a source that has no rows."""

    def __init__(self, recorder: Recorder, organization: str, source: str) -> None:
        self._recorder = recorder
        self._organization = organization
        self._status = Status(organization, source)
        recorder.snapshot_builder.add_status(self._status)

    def status(self, up: bool) -> None:
        """Show whether the last poll succeeded."""
        self._status.up = up
        if up:
            self._status.last_success = int(self._recorder.clock.now())


class NamesPoll(Shown):
    """Polls names: all of them every interval, and single ones when usage has their ids."""

    def __init__(
        self,
        recorder: Recorder,
        source: NameSource,
        organization: str,
        source_states: Sequence[SourceState],
        *,
        keys: bool = False,
    ) -> None:
        super().__init__(recorder, organization, "names")
        self._keys = keys
        self._source = source
        self._source_states = source_states
        self._is_unwritten = False
        self._may_look_up = False
        self._found_names = NO_NAMES
        self._written_at: float | None = None

    async def poll(self) -> None:
        """Read all names, then look up the other ids. Raises SourceError or StateError."""
        self._may_look_up = False
        try:
            await self._apply_and_notify(await self._source.read(self._found))
        except MissingScope:
            # The key may never get the scope: show the series without names instead of waiting.
            projects, keys = await self._recorder.do(self._unnamed)
            api_keys = dict.fromkeys(key for _, key in keys)
            await self._apply_and_notify(Names(dict.fromkeys(projects), api_keys, {}))
            self._may_look_up = False
            raise
        except SourceError:
            self._may_look_up = False
            raise
        if self._keys:
            await self._recorder.do(self._apply_keys)
        self._may_look_up = True
        await self.look_up()

    def _apply_keys(self) -> None:
        builder = self._recorder.snapshot_builder
        builder.apply_keys(self._organization, self._source.key_times())

    async def _found(self, names: Names) -> None:
        """Collect names as they arrive, and write them every few seconds.

        An answer proves that the key may read names, so single ids may be looked up from now on.
        """
        self._may_look_up = True
        self._found_names = merged(self._found_names, names)
        now = self._recorder.clock.mono()
        if self._written_at is None or now - self._written_at >= WRITE_PARTLY_EVERY:
            self._written_at = now
            partly = self._found_names
            self._found_names = NO_NAMES
            await self._apply_and_notify(partly)

    async def look_up(self) -> None:
        """Read the names of single ids that have none. Raises SourceError or StateError."""
        projects, keys = await self._recorder.do(self._unnamed)
        if projects or keys:
            await self._apply_and_notify(await self._source.lookup(projects, keys, self._found))

    async def forever_look_up(self) -> None:
        """Look up ids without a name every few seconds; without such ids, nothing is requested."""
        while True:
            await self._recorder.clock.sleep(LOOK_UP_INTERVAL)
            await self.try_look_up()

    async def try_look_up(self) -> None:
        """Look up ids without a name, if the key may. Errors are logged, and tried again."""
        if not self._may_look_up:
            return
        try:
            await self.look_up()
        except Rejected as error:
            # The next full poll shows whether the key may do it again.
            self._may_look_up = False
            log.debug(
                "names were not looked up",
                extra={
                    "event": "names_lookup_failed",
                    "organization": self._organization,
                    "error": str(error),
                },
            )
        except Exception as error:  # noqa: BLE001 - a bug shows up in the next full poll, too
            log.debug(
                "names were not looked up",
                extra={
                    "event": "names_lookup_failed",
                    "organization": self._organization,
                    "error": str(error),
                },
            )

    def _unnamed(self) -> tuple[list[str], list[tuple[str, str]]]:
        """Project ids without a name, and (project_id, api_key_id) pairs without a name."""
        names = self._recorder.snapshot_builder.names_of(self._organization)
        projects: dict[str, None] = {}
        keys: dict[tuple[str, str], None] = {}
        for source_state in self._source_states:
            for project, key in _ids_in_use(source_state):
                if project and project not in names.projects:
                    projects[project] = None
                # OpenAI's API finds a key only below its project.
                if key and project and key not in names.api_keys:
                    keys[project, key] = None
        return list(projects), list(keys)

    async def _apply_and_notify(self, found: Names) -> None:
        await self._recorder.do(lambda: self._apply(found))
        self._recorder.notify()

    def _apply(self, found: Names) -> None:
        """Show and write the names that are new. Raises StateError; a later call writes them."""
        recorder = self._recorder
        before = recorder.snapshot_builder.names_of(self._organization)
        after = merged(before, found)
        members: list[OverflowMember] = []
        marks: list[HighWaterMark] = []
        if after != before:
            self._is_unwritten = True
            members, marks = recorder.snapshot_builder.apply_names(
                self._organization, after, recorder.earliest(), recorder.clock.mono()
            )
        if self._is_unwritten:
            # High-water marks first: after a crash between the two a counter would fall.
            recorder.fold(members, marks)
            recorder.note_continued()
            recorder.store.set_names(self._organization, after)
            self._is_unwritten = False


def _ids_in_use(source_state: SourceState) -> Iterable[tuple[str | None, str | None]]:
    """Each pair of project_id and api_key_id that a series has, once."""
    dimensions = source_state.endpoint.dimensions
    if "project_id" not in dimensions:
        return ()
    project_place = dimensions.index("project_id")
    # Many series share a pair, and this runs every few seconds.
    if "api_key_id" not in dimensions:
        return dict.fromkeys((dims[project_place], None) for dims in source_state.series)
    key_place = dimensions.index("api_key_id")
    return dict.fromkeys((dims[project_place], dims[key_place]) for dims in source_state.series)


class LimitsPoll(Shown):
    """Polls the spend limits of an organization and of its projects; with `rates` the projects'
    rate limits, too.
    """

    def __init__(
        self, recorder: Recorder, source: LimitSource, organization: str, *, rates: bool = False
    ) -> None:
        super().__init__(recorder, organization, "limits")
        self._source = source
        self._rates = rates

    async def poll(self) -> None:
        """Read the limits. Raises SourceError or StateError."""
        limits = await self._source.read()
        await self._recorder.do(lambda: self._apply(limits))
        if self._rates:
            rates = await self._source.read_rates()
            builder = self._recorder.snapshot_builder
            await self._recorder.do(lambda: builder.apply_rates(self._organization, rates))

    def _apply(self, limits: Sequence[Limit]) -> None:
        recorder = self._recorder
        if recorder.snapshot_builder.limits_of(self._organization) != limits:
            recorder.store.set_limits(self._organization, limits)
        recorder.snapshot_builder.apply_limits(self._organization, limits)


def merged(before: Names, found: Names) -> Names:
    """All known names. A name stays known after the project, key or user was deleted."""
    return Names(
        _merged(before.projects, found.projects),
        _merged(before.api_keys, found.api_keys),
        _merged(before.users, found.users),
    )


def _merged(
    before: Mapping[str, str | None], found: Mapping[str, str | None]
) -> dict[str, str | None]:
    names = dict(before)
    for id_, name in found.items():
        if name is not None or names.get(id_) is None:
            names[id_] = name
    return names
