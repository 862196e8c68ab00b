"""Sends events to an OpenMeter-shaped endpoint: what is refused, what is worth another try, and
when.
"""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Literal, TypeAlias

Event: TypeAlias = dict[str, object]
BATCH = "application/cloudevents-batch+json"
TIMEOUT = 10.0
ACCEPTED = frozenset({202, 204})
"""204 is the contract. OpenMeter's third version answers 202. Any web page answers 200."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch: `sent`, `refused` (sending it again is no use), or to be sent again
    `later`.
    """

    what: Literal["sent", "refused", "later"]
    why: str = ""
    wait: float | None = None


class Sender:
    """POSTs batches. `url` is that of the server, or of its events endpoint."""

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        timeout: float = TIMEOUT,
        context: ssl.SSLContext | None = None,
    ) -> None:
        base = url.rstrip("/")
        self.url = base if base.endswith("/events") else f"{base}/api/v1/events"
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url: expected http:// or https://, got {url!r}")
        self._headers = {"Content-Type": BATCH, "User-Agent": "otel-openai-metering"}
        token = (token or "").strip()
        if not (token.isascii() and token.isprintable()):
            raise ValueError("token: expected printable ASCII characters; its value is not shown")
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._timeout = timeout
        self._opener = urllib.request.build_opener(
            _NoRedirects, urllib.request.HTTPSHandler(context=context)
        )

    def send(self, events: Sequence[Event]) -> Outcome:
        """Send a batch, once. Raises nothing that the network does."""
        body = json.dumps(events, separators=(",", ":"), default=str).encode()
        request = urllib.request.Request(self.url, body, self._headers, method="POST")  # noqa: S310 - http and https only, see above
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return _accepted(answer)
        except urllib.error.HTTPError as error:
            with error:
                return _answered(error)
        except (OSError, HTTPException, ValueError) as error:  # ValueError: an odd proxy variable
            return Outcome("later", f"{self.url}: {error}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET, whose answer says nothing of our events."""

    def redirect_request(self, *_: object) -> None:
        return None


def _accepted(answer: HTTPResponse) -> Outcome:
    """Whether an answer that is no error says that the events were taken."""
    kind = answer.headers.get_content_type()
    if answer.status in ACCEPTED and kind != "text/html":
        return Outcome("sent")
    return Outcome(
        "later",
        f"{answer.url}: {answer.status} ({kind}) is no answer of an events endpoint, which says 204; set url to one",
    )


def _answered(error: urllib.error.HTTPError) -> Outcome:
    if 300 <= error.code < 400:
        place = error.headers.get("Location", "nowhere").split("?")[0]
        return Outcome("later", f"{error.url}: {error.code}, redirects to {place}; set url to that")
    try:
        said = error.read(2000).decode("utf-8", "replace").strip()
    except OSError:
        said = ""
    why = f"{error.url}: {error.code} {said}"
    if error.code in (400, 413, 422):
        return Outcome("refused", why)
    wait = error.headers.get("Retry-After", "") if error.headers else ""
    return Outcome(
        "later", why, float(wait) if wait.isdigit() else None
    )  # also 401 and 404: somebody will mend the configuration
