"""What is logged of failing polls: one line for each kind of failure, however many sources it hits
and however its text varies, and again every hour while it lasts.
"""

import logging
from dataclasses import dataclass, field

from otel_openai_usage.errors import (
    Bug,
    ExporterError,
    MissingScope,
    NotOffered,
    OtherOrganization,
    Rejected,
    SourceError,
    StateError,
    Unavailable,
)

log = logging.getLogger(__name__)

SAY_AGAIN_AFTER = 3600.0
"""Seconds after which a failure that goes on is logged again."""
QUIET_AFTER_RECOVERY = 600.0
"""Seconds from one line of a kind to the next, if polls succeeded in between: a source that fails
at every second poll does not flood the log.
"""


@dataclass(slots=True)
class _Case:
    """A kind of failure: who has it now, and when it was last logged (None: never)."""

    sources: set[str] = field(default_factory=set)
    logged: float | None = None
    recovered: bool = False
    announced: bool = False

    @property
    def pause(self) -> float:
        """Seconds from its last line to the next."""
        return QUIET_AFTER_RECOVERY if self.recovered else SAY_AGAIN_AFTER


@dataclass(slots=True)
class FailureLog:
    """Told of every poll of one organization; logs what is news. `mono` is a clock that never
    steps, in seconds.
    """

    organization: str
    _waited: bool = False
    _cases: dict[str, _Case] = field(default_factory=dict)

    def failed(self, source: str, error: ExporterError, mono: float) -> None:
        """A poll failed."""
        cause = _cause(source, error)
        self._leave(source, but=cause)
        case = self._cases.setdefault(cause, _Case())
        if case.logged is None or mono - case.logged >= case.pause:
            case.logged = mono
            case.announced = True
            self._say(source, error, case)
        case.recovered = False
        case.sources.add(source)

    def slow(self, source: str) -> None:
        """A source that never answered is being asked again and again. Said once: what is the
        matter is said when it gives up.
        """
        if not self._waited:
            self._waited = True
            log.warning(
                "no usable answer yet; asking again",
                extra={"organization": self.organization, "source": source},
            )

    def recovered(self, source: str) -> None:
        """A poll succeeded."""
        ended = self._leave(source)
        for case in ended:
            case.recovered = True
        if any(case.announced for case in ended):
            log.info(
                "polls succeed again",
                extra={
                    "event": "poll_recovered",
                    "organization": self.organization,
                    "source": source,
                },
            )
        for case in ended:
            case.announced = False

    def _leave(self, source: str, but: str = "") -> list[_Case]:
        """Take the source out of its other cases. Those that no source has any more."""
        ended = []
        for cause, case in self._cases.items():
            if source in case.sources and cause != but:
                case.sources.discard(source)
                if not case.sources:
                    ended.append(case)
        return ended

    def _say(self, source: str, error: ExporterError, case: _Case) -> None:
        facts = {
            "event": _event(error),
            "organization": self.organization,
            "source": source,
            "error": str(error),
        }
        others = len(case.sources - {source})
        level = logging.INFO if is_expected(source, error) else logging.WARNING
        what = "poll failed"
        if isinstance(error, OtherOrganization):
            what = "the key is of another organization than the state; nothing of it is counted"
        elif rejected(error):
            what = "the key is refused; every source needs it"
        log.log(
            level,
            what,
            extra={**facts, "other_sources": others} if others else facts,
            exc_info=error.__cause__ if isinstance(error, Bug) else None,
        )


def _event(error: ExporterError) -> str:
    if isinstance(error, Bug):
        return "source_bug"
    return "organization_other" if isinstance(error, OtherOrganization) else "poll_failed"


def is_expected(source: str, error: ExporterError | None) -> bool:
    """Whether an operator may have chosen this failure: no scope for names or limits, an endpoint
    that is not offered.
    """
    return isinstance(error, NotOffered) or (
        isinstance(error, MissingScope) and source in ("names", "limits")
    )


def rejected(error: ExporterError | None) -> bool:
    """Whether OpenAI refused the key altogether."""
    return isinstance(error, Rejected) and not isinstance(error, MissingScope)


def _cause(source: str, error: ExporterError) -> str:
    """The kind of a failure: its class and class of status, never its text, which may hold a request id.

    Trouble with the key, the network or the disk hits every source alike; any other is a source's
    own.
    """
    kind = type(error).__name__
    if isinstance(error, SourceError):
        kind = f"{kind} {error.status_class}"
    if isinstance(error, Bug):
        kind = f"{kind} {type(error.__cause__).__name__}"
    shared = rejected(error) or isinstance(error, Unavailable | StateError)
    return kind if shared else f"{source}: {kind}"
