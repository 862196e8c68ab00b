"""Takes, renews and gives away the leases of this replica, as `domain.ownership` decides.

A thread of its own says that the replica lives, so that nothing else can hold that up. What follows
from it (opening and closing what is owned) is done in the event loop.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from otel_openai_usage.domain.ownership import Observer, plan, tick, valid_until
from otel_openai_usage.engine.failure_log import SAY_AGAIN_AFTER
from otel_openai_usage.errors import StateError, StateInUse
from otel_openai_usage.storage.ports import SharedState
from otel_openai_usage.storage.results import Look

log = logging.getLogger(__name__)


def boot_clock() -> float:
    """Seconds of a clock that never steps, and goes on while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class Owned(Protocol):
    """What a replica owns: it is polled, written, shown and sent."""

    async def open(self, scopes: Sequence[str]) -> None:
        """Begin to poll and to show these scopes. Raises StateError."""
        ...

    async def close(self, scopes: Sequence[str], *, is_owner: bool) -> None:
        """Poll and show these scopes no more. What is known is written first by an owner."""
        ...


@dataclass(frozen=True, slots=True)
class _Seen:
    """A look at the rows: the clock before it was asked for, and after it came."""

    look: Look
    asked: float
    came: float


class Ownership:
    """The leases of one replica. `scopes` is what it may own.

    Call `begin`, then `forever`, then `end`. `may_show` may be called in any thread.
    """

    def __init__(
        self,
        shared: SharedState,
        scopes: Collection[str],
        owned: Owned,
        *,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._shared = shared
        self._scopes = frozenset(scopes)
        self._owned = owned
        self._clock = clock
        self._observer = Observer(shared.seconds)
        self._tick = tick(shared.seconds)
        self._tokens: dict[str, int] = {}
        self._claimed_at: dict[str, float] = {}
        self._newest: _Seen | None = None
        self._valid_until = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat_forever, name="lease", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_news = asyncio.Event()
        self._logged_at = -SAY_AGAIN_AFTER
        self._is_away = False

    @property
    def scopes(self) -> Collection[str]:
        """What this replica owns now."""
        return self._tokens.keys()

    def may_show(self) -> bool:
        """Whether an answer that leaves now may contain what this replica owns."""
        seen = self._newest
        if seen is None or self._clock() >= self._valid_until:
            return False
        # What others own now is hidden at once, and closed soon.
        return not self._lost(seen)

    async def begin(self) -> None:
        """Look at the rows once, take what is free, and begin to renew. Raises StateError."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._beat)
        await self._step()
        self._thread.start()

    async def take_all(self) -> None:
        """Wait until every scope is owned. Raises StateInUse if another replica keeps one."""
        deadline = self._clock() + 2 * self._shared.seconds
        while missing := self._scopes - self._tokens.keys():
            if self._clock() >= deadline:
                raise StateInUse(f"another replica owns {', '.join(sorted(missing))}; end it first")
            await self._news()
            await self._step()

    async def forever(self) -> None:
        """Follow what happens to the leases."""
        while True:
            await self._news()
            try:
                await self._step()
            except StateError as error:
                self._log_error(error)

    async def end(self) -> None:
        """Give everything away: another replica goes on at once."""
        self._stopped.set()
        scopes = sorted(self._tokens)
        await self._owned.close(scopes, is_owner=True)
        self._forget(scopes)
        try:
            await asyncio.to_thread(self._shared.leave)
        except StateError as error:
            self._log_error(error)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, 5)

    def abandon(self) -> None:
        """Stop to renew, as a killed process does."""
        self._stopped.set()
        self._valid_until = 0.0

    async def _news(self) -> None:
        self._has_news.clear()
        # Not `wait_for`: until Python 3.12 it may swallow a cancellation.
        with suppress(TimeoutError):
            async with asyncio.timeout(self._shared.seconds):
                await self._has_news.wait()

    # --- in the thread

    def _beat_forever(self) -> None:
        while not self._stopped.wait(self._tick):
            try:
                self._beat()
            except StateError as error:
                self._report_away(error)
                continue
            self._report_back()
            if self._loop is not None:
                try:
                    self._loop.call_soon_threadsafe(self._has_news.set)
                except RuntimeError:
                    return  # The event loop has ended.

    def _beat(self) -> None:
        asked = self._clock()
        look = self._shared.beat()
        self._newest = _Seen(look, asked, self._clock())
        # A replica that others took for dead owns nothing: its next beat is its first.
        if look.is_known:
            self._valid_until = valid_until(asked, self._shared.seconds)

    def _lost(self, seen: _Seen) -> list[str]:
        """What these rows say that this replica does not own any more."""
        mine = {
            lease.scope: lease.token
            for lease in seen.look.leases
            if lease.owner == seen.look.replica
        }
        return [
            scope
            for scope, token in list(self._tokens.items())
            if mine.get(scope) != token and self._claimed_at[scope] < seen.asked
        ]

    def _report_away(self, error: StateError) -> None:
        if not self._is_away:
            self._is_away = True
            log.warning(
                "the database of the state cannot be reached; what is owned stays visible until"
                " the lease is over",
                extra={"event": "state_away", "error": str(error)},
            )

    def _report_back(self) -> None:
        if self._is_away:
            self._is_away = False
            log.info("the database of the state answers again", extra={"event": "state_back"})

    # --- in the event loop

    async def _step(self) -> None:
        """Do what the newest rows ask for. Raises StateError."""
        seen = self._newest
        if seen is None:
            return
        look = seen.look
        lost = self._lost(seen)
        if lost:
            log.warning(
                "another replica owns this now",
                extra={"event": "lease_lost", "scopes": ", ".join(sorted(lost))},
            )
            kept = {scope: token for scope, token in self._tokens.items() if scope not in lost}
            self._shared.hold(kept)
            await self._owned.close(lost, is_owner=False)
            self._forget(lost)
        for lease in look.leases:
            # It was given away while the database was out of reach.
            if lease.owner == look.replica and lease.scope not in self._tokens:
                await asyncio.to_thread(self._shared.release, lease.scope, lease.token)
        self._observer.saw(look.leases, look.beats, seen.came)
        todo = plan(look.replica, self._scopes, look.leases, self._observer, self._clock())
        if todo.release:
            await self._release([scope for scope in todo.release if scope in self._tokens])
        taken = []
        for claim in todo.claim:
            if claim.lease.scope in self._tokens:
                continue
            token = await asyncio.to_thread(self._shared.claim, claim)
            if token is not None:
                taken.append(claim.lease.scope)
                self._claimed_at[claim.lease.scope] = self._clock()
                self._tokens[claim.lease.scope] = token
        if taken:
            await self._open(taken)

    async def _open(self, scopes: Sequence[str]) -> None:
        log.info(
            "this replica owns more", extra={"event": "lease_taken", "scopes": ", ".join(scopes)}
        )
        self._shared.hold(self._tokens)
        try:
            await self._owned.open(scopes)
        except BaseException:
            # Another replica, or this one a little later, may be more successful.
            await self._release(scopes)
            raise

    async def _release(self, scopes: Sequence[str]) -> None:
        tokens = {scope: self._tokens[scope] for scope in scopes}
        await self._owned.close(scopes, is_owner=True)
        self._forget(scopes)
        for scope, token in tokens.items():
            await asyncio.to_thread(self._shared.release, scope, token)
        if scopes:
            facts = {"event": "lease_given", "scopes": ", ".join(scopes)}
            log.info("this replica gave some away", extra=facts)

    def _forget(self, scopes: Iterable[str]) -> None:
        for scope in scopes:
            self._tokens.pop(scope, None)
        self._shared.hold(self._tokens)

    def _log_error(self, error: StateError) -> None:
        now = self._clock()
        if now - self._logged_at >= SAY_AGAIN_AFTER:
            self._logged_at = now
            facts = {"event": "lease_failed", "error": str(error)}
            log.warning("leases could not be taken or given away", extra=facts)
