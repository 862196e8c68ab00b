"""How much of a stream falls into which minute. The truth, in closed form.

A day has a number of requests, which is cut into hours and those into minutes by running sums of
weights; the r-th request of a day has used a known running total. So any stretch is a difference of
two running totals: a day costs no more to ask for than a minute, and hours and days are exactly the
sums of their minutes.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate
from operator import add, sub
from typing import TypeAlias

from otel_openai_usage.domain.endpoints import ENDPOINTS, Endpoint
from otel_openai_usage.simulator.chance import draw, noise
from otel_openai_usage.simulator.workloads import Sizes, Stream

Flow: TypeAlias = tuple[int, ...]
"""The endpoint's measures, and for token endpoints image tokens in and out after them."""

MINUTE = 60
HOUR = 3600
DAY = 86400
_ANCHOR = 20454  # 2026-01-01, in days
_GOLDEN = 0x9E3779B97F4A7C15


def _upto(count: int, size: int, salt: int) -> int:
    """Running total of the first `count` requests of about `size`; grows with each by a fifth of it
    at least.
    """
    if not count:
        return 0
    return size * (1024 * count + (((count ^ salt) * _GOLDEN >> 50 & 1023) * 800 >> 10)) >> 10


def _tokens(count: int, sizes: Sizes, salt: int) -> Flow:
    into = _upto(count, sizes.size, salt)
    out = _upto(count, sizes.output, salt >> 7)
    return (
        into,
        out,
        into * sizes.cached >> 10,
        into * sizes.audio_input >> 10,
        out * sizes.audio_output >> 10,
        into * sizes.cache_write >> 10,
        count,
        into * sizes.image_input >> 10,
        out * sizes.image_output >> 10,
    )


def _sized(count: int, sizes: Sizes, salt: int) -> Flow:
    return (_upto(count, sizes.size, salt), count)


def _several(count: int, sizes: Sizes, _salt: int) -> Flow:
    return (count + (count * sizes.extra >> 10), count)


def _counted(count: int, _sizes: Sizes, _salt: int) -> Flow:
    return (count,)


def _plain(count: int, endpoint: Endpoint) -> Flow:
    """The flow of an endpoint that has no shape of its own: so many for each request, by the place
    of the measure.
    """
    return tuple(
        count if measure.name == "requests" else count * place
        for place, measure in enumerate(endpoint.measures, 2)
    )


_SHAPES: dict[str, Callable[[int, Sizes, int], Flow]] = {
    "completions": _tokens,
    "decisions": _tokens,
    "embeddings": _sized,
    "moderations": _sized,
    "images": _several,
    "audio_speeches": _sized,
    "audio_transcriptions": _sized,
    "code_interpreter_sessions": _counted,
    "file_search_calls": _counted,
    "web_search_calls": _several,
}
WIDE = {endpoint: 2 if shape is _tokens else 0 for endpoint, shape in _SHAPES.items()}
"""By how many numbers a flow of an endpoint is longer than its measures."""


def plus(one: Flow, other: Flow) -> Flow:
    """The sum, number by number."""
    return tuple(map(add, one, other))


class Traffic:
    """The truth about the streams of one world. Keeps a bounded part of what it worked out."""

    def __init__(self, streams: tuple[Stream, ...]) -> None:
        self._streams = streams
        count = max(len(streams), 1)
        self._day = lru_cache(count * 40)(self._plan)
        self._cuts = lru_cache(max(2000, min(count * 60, 6000)))(self._cut)
        self.hour = lru_cache(max(1000, min(count * 60, 6000)))(self._hour)

    def requests(self, stream: Stream, day: int) -> int:
        """How many requests a stream makes on a day (in days since 1970)."""
        grown = 1024 + max(-600, min(3 * (day - _ANCHOR) // 2, 3000))
        lively = 880 + draw(stream.seed, day) % 288
        return (
            stream.work.per_day * stream.work.rhythm.weekdays[(day + 3) % 7] * grown * lively >> 24
        )

    def upto(self, stream: Stream, minute: int) -> Flow:
        """What a stream has used since its UTC day began, when `minute` (minutes since 1970)
        begins.
        """
        day, rest = divmod(minute, 1440)
        hours = self._day(stream.index, day)
        hour, past = divmod(rest, 60)
        count = hours[hour]
        if past:
            cuts = self._cuts(stream.index, minute // 60)
            count += (hours[hour + 1] - count) * cuts[past] // (cuts[60] or 1)
        return self._at(stream, day, count)

    def between(self, stream: Stream, first: int, last: int) -> Flow | None:
        """What a stream used in the minutes from `first` up to `last`, or None for nothing."""
        used: Flow = (0,) * (
            len(ENDPOINTS[stream.work.endpoint].measures) + WIDE.get(stream.work.endpoint, 0)
        )
        while first < last:
            day = first // 1440
            until = min(last, (day + 1) * 1440)
            whole = (
                self._whole(stream, day) if until == (day + 1) * 1440 else self.upto(stream, until)
            )
            used = plus(used, whole)
            if first % 1440:
                used = tuple(map(sub, used, self.upto(stream, first)))
            first = until
        return used if any(used) else None

    def level(self, stream: Stream, minute: int) -> int:
        """Bytes that a vector store stream holds in a minute; changes by the hour."""
        base = 200_000_000 + stream.seed % 9_000_000_000
        grown = base // 400 * max(-300, minute // 1440 - _ANCHOR)
        return base + grown + base * (draw(stream.seed, minute // 60) % 64) // 4096

    def _at(self, stream: Stream, day: int, count: int) -> Flow:
        shape = _SHAPES.get(stream.work.endpoint)
        if shape is None:
            return _plain(count, ENDPOINTS[stream.work.endpoint])
        return shape(count, stream.work.sizes, stream.seed ^ day * _GOLDEN & 0xFFFFFFFFFFFF)

    def _whole(self, stream: Stream, day: int) -> Flow:
        return self._at(stream, day, self.requests(stream, day))

    def _plan(self, index: int, day: int) -> tuple[int, ...]:
        """How many requests of a day are made before each hour of it."""
        stream = self._streams[index]
        total = self.requests(stream, day)
        lively = noise(24, stream.seed, "hours", day)
        cuts = [
            0,
            *accumulate(
                weight * (192 + byte)
                for weight, byte in zip(stream.work.rhythm.hours, lively, strict=True)
            ),
        ]
        return tuple(total * cut // cuts[24] for cut in cuts)

    def _cut(self, index: int, hour: int) -> tuple[int, ...]:
        """Running sum of the weights of an hour's minutes."""
        stream = self._streams[index]
        return (
            0,
            *accumulate(
                noise(60, stream.seed, "minutes", hour).translate(stream.work.rhythm.minutes)
            ),
        )

    def _hour(self, index: int, hour: int) -> tuple[Flow | None, ...]:
        """What each minute of an hour (hours since 1970) used, None for nothing."""
        stream = self._streams[index]
        day, nth = divmod(hour, 24)
        hours = self._day(index, day)
        count = hours[nth]
        here = hours[nth + 1] - hours[nth]
        if not here:
            return (None,) * 60
        cuts = self._cuts(index, hour)
        counts = [count + here * cut // (cuts[60] or 1) for cut in cuts]
        counts[60] = hours[nth + 1]
        return self._differences(stream, day, counts)

    def _differences(self, stream: Stream, day: int, counts: list[int]) -> tuple[Flow | None, ...]:
        found: list[Flow | None] = []
        before = counts[0]
        used = self._at(stream, day, counts[0])
        for count in counts[1:]:
            if count == before:
                found.append(None)
                continue
            now = self._at(stream, day, count)
            found.append(tuple(map(sub, now, used)))
            before = count
            used = now
        return tuple(found)
