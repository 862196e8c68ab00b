"""What is said of failing polls: one trouble once, however many sources it hits, and again every
hour while it lasts.
"""

import logging
from dataclasses import dataclass, field

from otel_openai_usage.errors import (
    ExporterError,
    MissingScope,
    NotOffered,
    Rejected,
    StateError,
    Unavailable,
)

log = logging.getLogger(__name__)

SAY_AGAIN_AFTER = 3600.0
"""Seconds after which a trouble that goes on is said again."""


@dataclass(slots=True)
class _Case:
    sources: set[str]
    said: float


@dataclass(slots=True)
class Trouble:
    """Told of every poll of one organization; logs what is news. `mono` is a clock that never
    steps, in seconds.
    """

    organization: str
    _waited: bool = False
    _cases: dict[str, _Case] = field(default_factory=dict)

    def met(self, source: str, error: ExporterError, mono: float) -> None:
        """A poll failed."""
        cause = _cause(source, error)
        self._leave(source, but=cause)
        case = self._cases.get(cause)
        if case is None:
            case = self._cases[cause] = _Case(set(), mono)
            self._say(source, error, case)
        elif mono - case.said >= SAY_AGAIN_AFTER:
            case.said = mono
            self._say(source, error, case)
        case.sources.add(source)

    def unanswered(self, source: str) -> None:
        """A source that never answered is being asked again and again. Said once: what is the
        matter is said when it gives up.
        """
        if not self._waited:
            self._waited = True
            log.warning(
                "no usable answer yet; asking again",
                extra={"organization": self.organization, "source": source},
            )

    def over(self, source: str) -> None:
        """A poll succeeded."""
        if self._leave(source):
            log.info(
                "polls succeed again", extra={"organization": self.organization, "source": source}
            )

    def _leave(self, source: str, but: str = "") -> bool:
        """Take the source out of its case. True if that was the last one, and the case is closed."""
        for cause, case in list(self._cases.items()):
            if source in case.sources and cause != but:
                case.sources.discard(source)
                if not case.sources:
                    del self._cases[cause]
                    return True
        return False

    def _say(self, source: str, error: ExporterError, case: _Case) -> None:
        facts = {"organization": self.organization, "source": source, "error": str(error)}
        others = len(case.sources - {source})
        level = logging.INFO if bearable(source, error) else logging.WARNING
        what = "the key is refused; every source needs it" if rejected(error) else "poll failed"
        log.log(level, what, extra={**facts, "other_sources": others} if others else facts)


def bearable(source: str, error: ExporterError | None) -> bool:
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
    """Trouble with the key, the network or the disk hits every source alike; any other is a
    source's own.
    """
    shared = rejected(error) or isinstance(error, Unavailable | StateError)
    return type(error).__name__ if shared else f"{source}: {error}"
