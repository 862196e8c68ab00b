"""
Every error this package raises on purpose:

* ExporterError
  x ConfigError          ours to fix before starting; `problems` lists them all
  x ListenError          an address that cannot be listened on
    + PortInUse          … because another process does
  x SourceError          the upstream's fault
    + Rejected           the key: wrong, revoked, of the wrong kind
      - MissingScope     the key is good but may not do this
      - OtherOrganization  the key is of another organization than the state
    + NotOffered         404: this organization has no such endpoint
    + BadRequest         400: OpenAI refuses what we asked
      - LookbackExceeded … because it lies too far back
      - BadCursor        … because of a page token
      - GroupingRefused  … because of a dimension of group_by
    + RateLimited        429; waiting helps
    + Unavailable        5xx, a timeout, a broken or refused connection
    + BadResponse        no JSON, or none that we can use
      - BadShape         JSON of a shape that we do not know; the same will come again
      - TooLarge         more than may be in memory; a shorter window may fit
    + Bug                our own mistake while a source was read
  x Busy                 more comes in than the disk takes; waiting helps
  x StateError           the disk's fault
    + StateInUse         another process has it
    + NotOwner           another replica owns this part of it
    + StateTooNew        a newer version of this program wrote it
    + StateCorrupt       the file is not, or no longer, ours
    + StateLost          it is older than it was, or changed, and `state.strict` refuses that

Anything else that is raised is a bug. While a source is polled it becomes a `Bug` of that source;
anywhere else it ends the run.
"""

from collections.abc import Sequence
from datetime import UTC, datetime


class ExporterError(Exception):
    """Base of all errors raised on purpose; the message is for users and never holds a secret.

    `event` names the kind in the JSON log.
    """

    event = "failed"


class ConfigError(ExporterError):
    """The configuration cannot be used; `problems` holds every reason found, each with its path."""

    event = "configuration_error"

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class ListenError(ExporterError):
    """An address cannot be listened on."""

    event = "listen_failed"


class PortInUse(ListenError):
    """Another process listens there."""

    event = "port_in_use"


class SourceError(ExporterError):
    """OpenAI did not answer as hoped. `status` is the HTTP status, None without an answer."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        self.status = status
        super().__init__(message)

    @property
    def status_class(self) -> str:
        """The status, but "5xx" for each that says that the server failed; empty without one.

        An outage answers with many of them in turn, and they are one kind of failure.
        """
        if self.status is None:
            return ""
        return "5xx" if self.status >= 500 else str(self.status)


class Rejected(SourceError):
    """The key is not accepted."""


class MissingScope(Rejected):
    """The key is good but lacks a scope; `scopes` as OpenAI names them."""

    def __init__(
        self, message: str, *, status: int | None = None, scopes: Sequence[str] = ()
    ) -> None:
        self.scopes = tuple(scopes)
        super().__init__(message, status=status)


class OtherOrganization(Rejected):
    """The key, or the base URL, is of another organization than the one whose data the state has."""


class NotOffered(SourceError):
    """404: OpenAI does not offer this endpoint to this organization."""


class BadRequest(SourceError):
    """400: OpenAI refuses the request; trying the same again does not help."""


class LookbackExceeded(BadRequest):
    """The window lies further back than OpenAI reports."""


class BadCursor(BadRequest):
    """The page token was refused."""


class GroupingRefused(BadRequest):
    """OpenAI does not group by `dimensions` from the start of the window on.

    `accepted_from` is the UTC midnight (Unix seconds) from which it does; None if it refuses them
    in the whole window.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        dimensions: Sequence[str] = (),
        accepted_from: int | None = None,
    ) -> None:
        self.dimensions = tuple(dimensions)
        self.accepted_from = accepted_from
        super().__init__(message, status=status)

    summary = "OpenAI refuses to group by a dimension: that usage is read without it"

    def facts(self, organization: str, source: str) -> dict[str, object]:
        """What to log with the summary."""
        date = None
        if self.accepted_from is not None:
            date = f"{datetime.fromtimestamp(self.accepted_from, UTC):%Y-%m-%d}"
        return {
            "event": "grouping_refused",
            "organization": organization,
            "source": source,
            "dimensions": ", ".join(self.dimensions),
            "before": date or "all days so far",
        }


class RateLimited(SourceError):
    """429; `retry_after` in seconds where OpenAI said so.

    `out_of_quota` says that OpenAI named `insufficient_quota` as the reason: waiting does not help.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = 429,
        retry_after: float | None = None,
        out_of_quota: bool = False,
    ) -> None:
        self.retry_after = retry_after
        self.out_of_quota = out_of_quota
        super().__init__(message, status=status)


class Unavailable(SourceError):
    """No usable answer: 5xx, timeout, connection trouble. Waiting may help."""


class BadResponse(SourceError):
    """An answer that cannot be used."""


class BadShape(BadResponse):
    """An answer that is not of the shape we know; a developer should look."""


class TooLarge(BadResponse):
    """An answer that needs more memory than `api.max_bytes`; a shorter window may fit."""


class Bug(SourceError):
    """A mistake of ours that a source met. The source is down, the others go on."""


class Busy(ExporterError):
    """More arrives than can be stored now. None of it was recorded; a later retry helps."""


class StateError(ExporterError):
    """The state file cannot be used."""

    event = "state_failed"


class StateInUse(StateError):
    """Another process has the state."""

    event = "state_in_use"


class StateUnavailable(StateError):
    """The database that holds the state cannot be reached now."""

    event = "state_unavailable"


class NotOwner(StateError):
    """Another replica owns what was to be written."""

    event = "not_owner"


class StateTooNew(StateError):
    """The state was written by a newer version."""

    event = "state_too_new"


class StateCorrupt(StateError):
    """The state file is damaged, or is something else."""

    event = "state_damaged"


class StateLost(StateError):
    """The state lost something, and the settings say to refuse it then."""

    event = "state_lost"


class WebhookFailed(ExporterError):
    """A message did not arrive at the webhook."""

    event = "webhook_failed"
