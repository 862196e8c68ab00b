"""Sends reached thresholds of budgets to a webhook, each at least once, with an id that stays the
same when it is sent again.

Only the highest threshold that a budget newly reached in its period is sent. What was sent is a note
in the state, so that a restart sends nothing again.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal

from otel_openai_usage.domain.budgets import BudgetState, passed
from otel_openai_usage.domain.model import utc
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.errors import WebhookFailed
from otel_openai_usage.storage.ports import Writer

log = logging.getLogger(__name__)

_FIRST_PAUSE = 10.0
_LONGEST_PAUSE = 3600.0
"""Seconds until a message that could not be sent is tried again: doubled each time."""

Send = Callable[[bytes], Awaitable[None]]
"""Sends a JSON body. Raises WebhookFailed."""


class Webhook:
    """Knows what is to be sent. `changed` runs in the recorder's thread, the rest in the loop."""

    def __init__(
        self, recorder: Recorder, store: Writer, thresholds: Sequence[Decimal], send: Send
    ) -> None:
        self._recorder = recorder
        self._store = store
        self._thresholds = thresholds
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        # By the key of the note: the newest state and the threshold that is to be sent.
        self._waiting: dict[str, tuple[BudgetState, Decimal]] = {}
        self._sent: dict[str, Decimal] = {}

    def changed(self, states: Sequence[BudgetState]) -> None:
        """Note which thresholds are reached. Raises StateError."""
        for state in states:
            used = state.used
            reached = None if used is None else passed(used, self._thresholds)
            if reached is None:
                continue
            key = _note_key(state)
            if key not in self._sent:
                self._sent[key] = Decimal(self._store.note(key) or 0)
            if reached > self._sent[key]:
                self._waiting[key] = (state, reached)
                self._loop.call_soon_threadsafe(self._news.set)

    async def forever(self) -> None:
        """Send what is reached. A failure is logged, and tried again with longer pauses."""
        pause = _FIRST_PAUSE
        while True:
            await self._news.wait()
            self._news.clear()
            if await self.once():
                pause = _FIRST_PAUSE
                continue
            self._news.set()
            await self._recorder.clock.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def once(self) -> bool:
        """Send everything that waits. Return whether all of it arrived."""
        for key, (state, threshold) in list(self._waiting.items()):
            try:
                await self._send(body(state, threshold))
            except WebhookFailed as error:
                log.warning(
                    "a reached budget threshold was not sent; it is tried again",
                    extra={
                        "event": "webhook_failed",
                        "budget": state.budget.name,
                        "error": str(error),
                    },
                )
                return False
            await self._recorder.do(lambda: self._note(key, threshold))  # noqa: B023 - awaited here
            if self._waiting.get(key) == (state, threshold):
                del self._waiting[key]
            log.info(
                "sent that a budget reached %s of its amount",
                f"{threshold:.0%}",
                extra={"event": "webhook_sent", "budget": state.budget.name},
            )
        return True

    def _note(self, key: str, threshold: Decimal) -> None:
        self._store.set_note(key, str(threshold))
        self._sent[key] = threshold


def _note_key(state: BudgetState) -> str:
    organization = state.budget.organization or ""
    return f"webhook:{organization}:{state.budget.name}:{state.window.start}"


def body(state: BudgetState, threshold: Decimal) -> bytes:
    """The message, as JSON. `text` is for Slack, whose three special characters are escaped."""
    budget = state.budget
    spent = state.spent or Decimal(0)
    start = f"{utc(state.window.start):%Y-%m-%d}"
    end = f"{utc(state.window.end):%Y-%m-%d}"
    name = _escaped(budget.name)
    text = (
        f"OpenAI budget {name}: {spent:.2f} of {budget.amount:.2f} {budget.currency} is spent"
        f" ({threshold:.0%} reached) in the {budget.period} from {start}."
    )
    message: dict[str, object] = {
        "text": text,
        "id": f"{budget.organization or ''}/{budget.name}/{start}/{threshold}",
        "budget": budget.name,
        "organization": budget.organization,
        "threshold": float(threshold),
        "amount": float(budget.amount),
        "spent": float(spent),
        "currency": budget.currency,
        "basis": state.basis,
        "period": {"start": start, "end": end},
    }
    if state.forecast is not None:
        message["forecast"] = state.forecast.median
    return json.dumps(message, ensure_ascii=False).encode()


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
