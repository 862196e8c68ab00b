"""Finds out which dimensions of a grouping OpenAI refuses, and before which date.

OpenAI answers 400 to a grouping that it does not offer (to this organization, or for days before a
date). Its message is not documented, so we ask small questions: one bucket each.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from otel_openai_usage.domain.model import Width, Window

Ask = Callable[[Window, tuple[str, ...]], Awaitable[bool]]
"""Whether OpenAI accepts a grouping for a window of one bucket. Raises SourceError if something
else is wrong.
"""

_ROLLING_OUT = ("line_item", "api_key_id", "user_id", "api_source")
"""Dimensions that OpenAI did not offer from the beginning; the newest last."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Dimensions that are refused in a window before `accepted_from`, a UTC midnight in it; in all
    of the window if that is None. Before that, other dimensions may be refused, too.
    """

    dimensions: tuple[str, ...]
    accepted_from: int | None


async def refusal(
    ask: Ask, window: Window, width: Width, grouping: Sequence[str]
) -> Refusal | None:
    """Which dimensions are refused in a window whose reading got a 400.

    None if the 400 was not about the grouping, or did not happen again. Raises SourceError.
    """
    wanted = tuple(grouping)
    midnights = range(-(-(window.start + 1) // Width.DAY) * Width.DAY, window.end, Width.DAY)
    starts = [window.start, *midnights]

    async def accepts(index: int, some: tuple[str, ...]) -> bool:
        return await ask(Window(starts[index], starts[index] + width), some)

    if not wanted or await accepts(0, wanted) or not await accepts(0, ()):
        return None
    accepted_index = len(starts)
    if midnights and await accepts(len(starts) - 1, wanted):
        # Refused before a date and accepted from then on: bisect for the first accepted midnight.
        low = 1
        accepted_index = len(starts) - 1
        while low < accepted_index:
            middle = (low + accepted_index) // 2
            if await accepts(middle, wanted):
                accepted_index = middle
            else:
                low = middle + 1
    newest_refused = accepted_index - 1
    accepted: tuple[str, ...] = ()
    for name in sorted(wanted, key=_age):
        more = _in_order(wanted, {*accepted, name})
        # Asked a second time, so that one stray 400 costs no dimension.
        if await accepts(newest_refused, more) or await accepts(newest_refused, more):
            accepted = more
    refused = tuple(name for name in wanted if name not in accepted)
    if not refused:
        return None
    date = starts[accepted_index] if accepted_index < len(starts) else None
    return Refusal(refused, date)


def _age(name: str) -> int:
    return _ROLLING_OUT.index(name) if name in _ROLLING_OUT else -1


def _in_order(wanted: Sequence[str], chosen: set[str]) -> tuple[str, ...]:
    return tuple(name for name in wanted if name in chosen)
