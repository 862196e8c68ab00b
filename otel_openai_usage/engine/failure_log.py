"""Logs failing polls without flooding the log: one line for each kind of failure, however many
sources have it and however its text varies, and again every hour while it lasts.
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
"""Least seconds between two lines of a kind, if polls succeeded in between: a source that fails at
every second poll does not flood the log.
"""


@dataclass(slots=True)
class _Case:
    """A kind of failure: the sources that have it, and when it was last logged (None: never).

    `recovered` says that all its sources succeeded since its last line, `announced` that this line
    was not yet followed by "polls succeed again".
    """

    sources: set[str] = field(default_factory=set)
    logged: float | None = None
    recovered: bool = False
    announced: bool = False

    @property
    def pause(self) -> float:
        """Least seconds from its last line to the next."""
        return QUIET_AFTER_RECOVERY if self.recovered else SAY_AGAIN_AFTER


@dataclass(slots=True)
class FailureLog:
    """Receives the result of every poll of one organization, and logs new failures.

    `mono` is in seconds, of a clock that never steps.
    """

    organization: str
    _has_logged_slow: bool = False
    _cases: dict[str, _Case] = field(default_factory=dict)

    def failed(self, source: str, error: ExporterError, mono: float) -> None:
        """Note that a poll failed."""
        cause = _cause(source, error)
        self._leave(source, but=cause)
        case = self._cases.setdefault(cause, _Case())
        if case.logged is None or mono - case.logged >= case.pause:
            case.logged = mono
            case.announced = True
            self._log(source, error, case)
        case.recovered = False
        case.sources.add(source)

    def slow(self, source: str) -> None:
        """Log once that a source has not answered yet. The reason is logged when its poll fails."""
        if not self._has_logged_slow:
            self._has_logged_slow = True
            log.warning(
                "no usable answer yet; asking again",
                extra={
                    "event": "poll_slow",
                    "organization": self.organization,
                    "source": source,
                },
            )

    def recovered(self, source: str) -> None:
        """Note that a poll succeeded."""
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
        """Remove the source from its other cases. Return those that no source has any more."""
        ended = []
        for cause, case in self._cases.items():
            if source in case.sources and cause != but:
                case.sources.discard(source)
                if not case.sources:
                    ended.append(case)
        return ended

    def _log(self, source: str, error: ExporterError, case: _Case) -> None:
        facts: dict[str, object] = {
            "event": _event(error),
            "organization": self.organization,
            "source": source,
            "error": str(error),
        }
        others = len(case.sources - {source})
        if others:
            facts["other_sources"] = others
        level = logging.INFO if is_expected(source, error) else logging.WARNING
        message = "poll failed"
        if isinstance(error, OtherOrganization):
            message = "the key is of another organization than the state; nothing of it is counted"
        elif rejected(error):
            message = "the key is refused; every source needs it"
        log.log(
            level,
            message,
            extra=facts,
            exc_info=error.__cause__ if isinstance(error, Bug) else None,
        )


def _event(error: ExporterError) -> str:
    if isinstance(error, Bug):
        return "source_bug"
    return "organization_other" if isinstance(error, OtherOrganization) else "poll_failed"


def is_expected(source: str, error: ExporterError | None) -> bool:
    """Whether an operator may have intended this failure: a key without the scope for names or
    limits, or an endpoint that OpenAI does not offer to this organization.
    """
    return isinstance(error, NotOffered) or (
        isinstance(error, MissingScope) and source in ("names", "limits")
    )


def rejected(error: ExporterError | None) -> bool:
    """Whether OpenAI refused the key altogether."""
    return isinstance(error, Rejected) and not isinstance(error, MissingScope)


def _cause(source: str, error: ExporterError) -> str:
    """The kind of a failure: its class and class of status, never its text with a request id.

    A failure of the key, the network or the disk is the same for all sources; any other belongs
    to one source.
    """
    kind = type(error).__name__
    if isinstance(error, SourceError):
        kind = f"{kind} {error.status_class}"
    if isinstance(error, Bug):
        kind = f"{kind} {type(error.__cause__).__name__}"
    shared = rejected(error) or isinstance(error, Unavailable | StateError)
    return kind if shared else f"{source}: {kind}"
