"""Sends events to an OpenMeter-shaped endpoint: what is refused, what is worth another try, and
when.
"""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, InvalidURL
from typing import Literal, TypeAlias

from otel_openai_metering.address import LONGEST, Address, shown

Event: TypeAlias = dict[str, object]
BATCH = "application/cloudevents-batch+json"
TIMEOUT = 10.0
MAX_ANSWER = 2000
"""Bytes of an answer that are read."""
REFUSED = frozenset({400, 413, 422})
"""Sending the same again is no use."""
ACCEPTED = frozenset({202, 204})
"""204 is the contract. OpenMeter's third version answers 202. Any web page answers 200."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch: `sent`, `refused` (sending it again is no use), or to be sent again
    `later`. `index` is the place of the event in the batch for which it was refused, where the
    server says it. `kind` is the same for all outcomes that are logged as one.
    """

    what: Literal["sent", "refused", "later"]
    why: str = ""
    wait: float | None = None
    index: int | None = None
    kind: str = ""


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
        self._address = Address.of(url)
        self._headers = {"Content-Type": BATCH, "User-Agent": "otel-openai-metering"}
        token = (token or "").strip()
        if not (token.isascii() and token.isprintable()):
            raise ValueError("token: expected printable ASCII characters; its value is not shown")
        if token and self._address.basic:
            raise ValueError("url: it has a user, and there is a token too; give one of them")
        if self._address.basic:
            self._headers["Authorization"] = self._address.basic
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._secrets = (*self._address.secrets, token) if token else self._address.secrets
        self._timeout = timeout
        self._opener = urllib.request.build_opener(
            _NoRedirects, urllib.request.HTTPSHandler(context=context)
        )

    def send(self, events: Sequence[Event]) -> Outcome:
        """Send a batch, once. Raises nothing that the network does."""
        body = json.dumps(events, separators=(",", ":"), default=str).encode()
        request = urllib.request.Request(self._address.url, body, self._headers, method="POST")  # noqa: S310 - http and https only, see above
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return self._accepted(answer)
        except urllib.error.HTTPError as error:
            with error:
                return self._answered(error)
        except (OSError, HTTPException, ValueError) as error:
            return Outcome("later", f"{self._address.shown}: {_why(error)}")

    def _accepted(self, answer: HTTPResponse) -> Outcome:
        """Whether an answer that is no error says that the events were taken."""
        kind = answer.headers.get_content_type()
        if answer.status in ACCEPTED and kind != "text/html":
            return Outcome("sent")
        return Outcome(
            "later",
            f"{self._address.shown}: {answer.status} ({kind}) is no answer of an events endpoint, which says 204; set url to one",
        )

    def _answered(self, error: urllib.error.HTTPError) -> Outcome:
        address = self._address.shown
        if 300 <= error.code < 400:
            place = shown(error.headers.get("Location", "nowhere"))
            why = f"{address}: {error.code}, redirects to {place}; set url to that"
            return Outcome("later", why)
        try:
            said = error.read(MAX_ANSWER).decode("utf-8", "replace").strip()
        except (OSError, HTTPException):
            said = ""
        why = f"{address}: {error.code} {self._without_secrets(said)}"
        if error.code in REFUSED:
            return Outcome("refused", why, index=_index(said), kind=str(error.code))
        wait = error.headers.get("Retry-After", "") if error.headers else ""
        # also 401 and 404: somebody will mend the configuration
        return Outcome("later", why, float(wait) if wait.isdecimal() else None)

    def _without_secrets(self, said: str) -> str:
        """What a server said, which may quote the request."""
        for secret in self._secrets:
            said = said.replace(secret, "…")
        return said


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET, whose answer says nothing of our events."""

    def redirect_request(self, *_: object) -> None:
        return None


def _why(error: Exception) -> str:
    """An error in words, without an address: that of a proxy has a password, too."""
    if isinstance(error, OSError):
        return str(error)[:LONGEST]
    if isinstance(error, ValueError | InvalidURL):
        return "the address of a proxy is not right"
    return f"the answer is no HTTP ({type(error).__name__})"


def _index(said: str) -> int | None:
    """The index in an answer as RFC 9457 describes it; None if it has none."""
    try:
        found = json.loads(said)["index"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if type(found) is int else None
