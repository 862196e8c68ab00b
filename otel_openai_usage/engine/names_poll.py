"""Polls what is not counted: names and spend limits."""

import logging
from collections.abc import Iterable, Sequence

from otel_openai_usage.domain.model import NO_NAMES, Names
from otel_openai_usage.domain.source_state import SourceState, Status
from otel_openai_usage.engine.ports import LimitSource, NameSource
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.errors import MissingScope, Rejected, SourceError
from otel_openai_usage.view.attributes import dimensions, unnamed

log = logging.getLogger(__name__)


KEEP_PARTLY_EVERY = 2.0
"""Seconds between two times that names are kept while they are still being read."""


class Shown:
    """How a source without a book is doing, on the Board."""

    def __init__(self, recorder: Recorder, organization: str, source: str) -> None:
        self._recorder = recorder
        self._organization = organization
        self._status = Status(organization, source)
        recorder.snapshot_builder.add_status(self._status)

    def status(self, up: bool) -> None:
        """Show how it went."""
        self._status.up = up
        if up:
            self._status.last_success = int(self._recorder.clock.now())


class NamesPoll(Shown):
    """Polls names, all of them every interval and single ones as they turn up."""

    def __init__(
        self,
        recorder: Recorder,
        source: NameSource,
        organization: str,
        source_states: Sequence[SourceState],
    ) -> None:
        super().__init__(recorder, organization, "names")
        self._source = source
        self._source_states = source_states
        self._owes = False
        self._may_look_up = False
        self._partly = NO_NAMES
        self._kept_partly: float | None = None

    async def poll(self) -> None:
        """Read all names, then those that usage speaks of and the lists lack. Raises SourceError or
        StateError.
        """
        self._may_look_up = False
        try:
            await self._keep(await self._source.read(self._found))
        except MissingScope:
            # Nobody will name them: show them as unknown instead of waiting.
            projects, keys = await self._recorder.do(self._unnamed)
            await self._keep(
                Names(dict.fromkeys(projects), dict.fromkeys(key for _, key in keys), {})
            )
            self._may_look_up = False
            raise
        except SourceError:
            self._may_look_up = False
            raise
        self._may_look_up = True
        await self.look_up()

    async def _found(self, names: Names) -> None:
        """Show names as they come, a few seconds' worth at a time; they may be looked up one by one
        from the first of them on.
        """
        self._may_look_up = True
        self._partly = merged(self._partly, names)
        now = self._recorder.clock.mono()
        if self._kept_partly is None or now - self._kept_partly >= KEEP_PARTLY_EVERY:
            self._kept_partly = now
            partly = self._partly
            self._partly = NO_NAMES
            await self._keep(partly)

    async def look_up(self) -> None:
        """Ask for single ids that have no name yet."""
        projects, keys = await self._recorder.do(self._unnamed)
        if projects or keys:
            await self._keep(await self._source.lookup(projects, keys, self._found))

    async def forever_look_up(self) -> None:
        """Look for unnamed ids every few seconds; asks OpenAI only when there are some."""
        while True:
            await self._recorder.clock.sleep(5.0)
            await self.try_look_up()

    async def try_look_up(self) -> None:
        """Look for unnamed ids if names can be read; what fails is tried again later."""
        if not self._may_look_up:
            return
        try:
            await self.look_up()
        except Rejected as error:  # the next full reading will tell whether it may be asked again
            self._may_look_up = False
            log.debug(
                "looking up names",
                extra={"organization": self._organization, "error": str(error)},
            )
        except Exception as error:  # noqa: BLE001 - a bug shows up in the next full poll, too
            log.debug(
                "looking up names",
                extra={"organization": self._organization, "error": str(error)},
            )

    def _unnamed(self) -> tuple[list[str], list[tuple[str, str]]]:
        names = self._recorder.snapshot_builder.names_of(self._organization)
        projects: dict[str, None] = {}
        keys: dict[tuple[str, str], None] = {}
        for source_state in self._source_states:
            for stored_series in source_state.series.values():
                dims = dimensions(source_state, stored_series)
                if unnamed(dims, names):
                    project = dims.get("project_id")
                    key = dims.get("api_key_id")
                    if project and project not in names.projects:
                        projects[project] = None
                    if key and project and key not in names.api_keys:
                        keys[project, key] = None
        return list(projects), list(keys)

    async def _keep(self, found: Names) -> None:
        recorder = self._recorder

        def work() -> None:
            before = recorder.snapshot_builder.names_of(self._organization)
            after = merged(before, found)
            if after != before:
                self._owes = True
                made = recorder.snapshot_builder.apply_names(
                    self._organization, after, recorder.earliest(), recorder.clock.mono()
                )
            else:
                made = [], []
            if self._owes:
                recorder.fold(
                    *made
                )  # first: a crash between new names and what must not fall would let it fall
                recorder.store.set_names(self._organization, after)
                self._owes = False

        await recorder.do(work)
        recorder.notify()


class LimitsPoll(Shown):
    """Polls spend limits of the organization and of its projects."""

    def __init__(self, recorder: Recorder, source: LimitSource, organization: str) -> None:
        super().__init__(recorder, organization, "limits")
        self._source = source

    async def poll(self) -> None:
        """Read the limits. Raises SourceError or StateError."""
        limits = await self._source.read()

        def work() -> None:
            if self._recorder.snapshot_builder.limits_of(self._organization) != limits:
                self._recorder.store.set_limits(self._organization, limits)
            self._recorder.snapshot_builder.apply_limits(self._organization, limits)

        await self._recorder.do(work)


def merged(before: Names, found: Names) -> Names:
    """What was known and what was found; a name once known outlives the thing that it names."""

    def both(
        old: Iterable[tuple[str, str | None]], new: Iterable[tuple[str, str | None]]
    ) -> dict[str, str | None]:
        names = dict(old)
        names.update((id_, name) for id_, name in new if name is not None or names.get(id_) is None)
        return names

    return Names(
        both(before.projects.items(), found.projects.items()),
        both(before.api_keys.items(), found.api_keys.items()),
        both(before.users.items(), found.users.items()),
    )
