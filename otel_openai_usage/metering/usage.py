"""What a response of OpenAI's says of its usage, as a CloudEvent. Pure.

Takes what the official client returns, or the same as a mapping: chat completions, responses,
embeddings, images, transcriptions, realtime's `response.done`, batches (openai-api.md section 7).
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_IDS = ("id", "_request_id")
_TIMES = ("created", "created_at")
_TOKENS = (
    ("prompt_tokens", "prompt_tokens"), ("completion_tokens", "completion_tokens"), ("input_tokens", "input_tokens"),
    ("output_tokens", "output_tokens"), ("total_tokens", "total_tokens"), ("seconds", "seconds"),
)  # fmt: skip
_DETAILS = (
    ("cached_tokens", ("prompt_tokens_details", "input_tokens_details", "input_token_details")),
    (
        "reasoning_tokens",
        ("completion_tokens_details", "output_tokens_details", "output_token_details"),
    ),
)


class NoUsage(ValueError):
    """The response does not say what it used."""


@dataclass(frozen=True, slots=True)
class Told:
    """What was handed in with a response: whose it is, and what the response itself does not say.
    `now` in Unix seconds.
    """

    subject: str
    source: str
    type: str
    now: float
    model: str | None = None
    attributes: Mapping[str, object] | None = None


def get(thing: Any, name: str) -> Any:
    """A part of an object or of a mapping; None if it has none."""
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


def event(response: Any, told: Told) -> dict[str, object]:
    """The CloudEvent of a response. Raises NoUsage.

    Its id is the response's own, so that telling twice is counted once; a response without one
    (embeddings, images) has that of the request, else a new one.
    """
    inner = get(response, "response") if get(response, "usage") is None else None
    response = response if inner is None or get(inner, "usage") is None else inner
    usage = get(response, "usage")
    if usage is None:
        raise NoUsage(f"{type(response).__name__} has no usage")
    return envelope(
        next((found for name in _IDS if (found := get(response, name))), None),
        next((found for name in _TIMES if (found := get(response, name))), None),
        get(response, "model"),
        numbers(usage),
        told,
    )


def numbers(usage: Any) -> dict[str, object]:
    """The counts of a usage object, flat: details stand beside the totals that they are parts of."""
    found: dict[str, object] = {
        ours: value for name, ours in _TOKENS if (value := get(usage, name)) is not None
    }
    for ours, holders in _DETAILS:
        for holder in holders:
            value = get(get(usage, holder), ours)
            if value is not None:
                found.setdefault(ours, value)
    return found


def envelope(
    id_: str | None,
    created: float | None,
    model: str | None,
    data: Mapping[str, object],
    told: Told,
) -> dict[str, object]:
    """The CloudEvents 1.0 envelope around what was used."""
    model = model or told.model
    content: dict[str, object] = {**(told.attributes or {}), **data}
    if model:
        content["model"] = model
    return {
        "specversion": "1.0",
        "id": str(id_ or uuid.uuid4()),
        "source": told.source,
        "type": told.type,
        "subject": told.subject,
        "time": f"{_time(created, told.now):%Y-%m-%dT%H:%M:%SZ}",
        "datacontenttype": "application/json",
        "data": content,
    }


def _time(created: float | None, now: float) -> datetime:
    """When it was made; now, if what a provider says of that is no time."""
    try:
        return datetime.fromtimestamp(created or now, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(now, UTC)
