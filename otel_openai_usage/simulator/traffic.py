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
"""The endpoint's measures. For token endpoints those numbers of which `measures` makes them."""

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
    # Multiplying by the golden ratio scatters neighbouring counts over 10 bits. The jitter stays
    # below 800 of 1024, so that no request makes the total smaller than it was.
    scattered = (count ^ salt) * _GOLDEN >> 50 & 1023
    jitter = scattered * 800 >> 10
    return size * (1024 * count + jitter) >> 10


def _tokens(count: int, sizes: Sizes, salt: int) -> Flow:
    into = _upto(count, sizes.size, salt)
    # Another salt, or input and output would always be large together.
    out = _upto(count, sizes.output, salt >> 7)
    # The others are parts of input or output, because OpenAI's totals include them.
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
        into * sizes.cached_audio >> 10,
        into * sizes.cached_image >> 10,
        into * sizes.cache_write_12h >> 10,
    )


def _token_measures(flow: Flow) -> Flow:
    """All seventeen numbers: sums and differences, so that they add up in parts of a flow, too."""
    into, out, cached, audio_in, audio_out, written, requests = flow[:7]
    image_in, image_out, cached_audio, cached_image, written_12h = flow[7:]
    # OpenAI's sums: input is uncached, cached and cache-write tokens; uncached input is text, audio
    # and image tokens.
    uncached = into - cached - written
    text_in = uncached - audio_in - image_in
    text_out = out - audio_out - image_out
    cached_text = cached - cached_audio - cached_image
    return (
        *(into, out, cached, audio_in, audio_out, written, requests, text_in, text_out),
        *(image_in, image_out, cached_text, cached_audio, cached_image),
        *(written - written_12h, written_12h, uncached),
    )


_TOKEN_NUMBERS = 12


def _sized(count: int, sizes: Sizes, salt: int) -> Flow:
    return (_upto(count, sizes.size, salt), count)


def _several(count: int, sizes: Sizes, _salt: int) -> Flow:
    # Some requests make several images or searches, so there are more of these than of requests.
    extra = count * sizes.extra >> 10
    return (count + extra, count)


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


def measures(endpoint: str, flow: Flow) -> Flow:
    """The measures of an endpoint that a flow of it stands for."""
    return _token_measures(flow) if _SHAPES.get(endpoint) is _tokens else flow


def width(endpoint: str) -> int:
    """How many numbers a flow of an endpoint has."""
    is_tokens = _SHAPES.get(endpoint) is _tokens
    return _TOKEN_NUMBERS if is_tokens else len(ENDPOINTS[endpoint].measures)


def plus(one: Flow, other: Flow) -> Flow:
    """The sum, number by number."""
    return tuple(map(add, one, other))


class Traffic:
    """The truth about the streams of one world. Keeps a bounded part of what it worked out."""

    def __init__(self, streams: tuple[Stream, ...]) -> None:
        self._streams = streams
        count = max(len(streams), 1)
        # 40 days for each stream: longer than the 31 days of one page. A day's plan is 25 numbers,
        # but an hour is 60 flows, so the number of hours has a bound of its own.
        hours = min(count * 60, 6000)
        self._day = lru_cache(count * 40)(self._plan)
        self._cuts = lru_cache(max(2000, hours))(self._cut)
        self.hour = lru_cache(max(1000, hours))(self._hour)

    def requests(self, stream: Stream, day: int) -> int:
        """How many requests a stream makes on a day (in days since 1970)."""
        work = stream.work
        # The company grows by the day, but between bounds, so that no date is absurd.
        growth = 3 * (day - _ANCHOR) // 2
        grown = 1024 + max(-600, min(growth, 3000))
        lively = 880 + draw(stream.seed, day) % 288
        # 1970 began on a Thursday, and the weekdays begin with Monday.
        weekday = work.rhythm.weekdays[(day + 3) % 7]
        # The scales are 16 for the weekday and 1024 for the other two: 24 bits together.
        return work.per_day * weekday * grown * lively >> 24

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
            in_hour = hours[hour + 1] - count
            # An hour can have no weight at all: minutes of PLAYING often weigh nothing.
            count += in_hour * cuts[past] // (cuts[60] or 1)
        return self._at(stream, day, count)

    def between(self, stream: Stream, first: int, last: int) -> Flow | None:
        """What a stream used in the minutes from `first` up to `last`, or None for nothing."""
        used: Flow = (0,) * width(stream.work.endpoint)
        while first < last:
            day = first // 1440
            day_end = (day + 1) * 1440
            until = min(last, day_end)
            # Running totals begin at 0 every midnight, so `upto` cannot give a whole day.
            is_whole = until == day_end
            since_midnight = self._whole(stream, day) if is_whole else self.upto(stream, until)
            used = plus(used, since_midnight)
            if first % 1440:
                before = self.upto(stream, first)
                used = tuple(map(sub, used, before))
            first = until
        return used if any(used) else None

    def level(self, stream: Stream, minute: int) -> int:
        """Bytes that a vector store stream holds in a minute; changes by the hour."""
        base = 200_000_000 + stream.seed % 9_000_000_000
        days = minute // 1440 - _ANCHOR
        # At most 300 days back, or the level would fall below zero.
        grown = base // 400 * max(-300, days)
        wobble = draw(stream.seed, minute // 60) % 64
        return base + grown + base * wobble // 4096

    def _at(self, stream: Stream, day: int, count: int) -> Flow:
        """What the first `count` requests of a day used."""
        work = stream.work
        shape = _SHAPES.get(work.endpoint)
        if shape is None:
            return _plain(count, ENDPOINTS[work.endpoint])
        # Every day has its own sizes, or all days would begin with the same requests.
        day_bits = day * _GOLDEN & 0xFFFFFFFFFFFF
        return shape(count, work.sizes, stream.seed ^ day_bits)

    def _whole(self, stream: Stream, day: int) -> Flow:
        return self._at(stream, day, self.requests(stream, day))

    def _plan(self, index: int, day: int) -> tuple[int, ...]:
        """How many requests of a day are made before each hour of it."""
        stream = self._streams[index]
        total = self.requests(stream, day)
        lively = noise(24, stream.seed, "hours", day)
        weights = []
        for weight, byte in zip(stream.work.rhythm.hours, lively, strict=True):
            weights.append(weight * (192 + byte))
        cuts = list(accumulate(weights, initial=0))
        # Cutting running sums, not each hour, makes the hours add up to the day exactly.
        return tuple(total * cut // cuts[24] for cut in cuts)

    def _cut(self, index: int, hour: int) -> tuple[int, ...]:
        """Running sum of the weights of an hour's minutes."""
        stream = self._streams[index]
        chance = noise(60, stream.seed, "minutes", hour)
        weights = chance.translate(stream.work.rhythm.minutes)
        return tuple(accumulate(weights, initial=0))

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
        total = cuts[60] or 1
        counts = [count + here * cut // total for cut in cuts]
        # In an hour whose minutes all weigh nothing, the last minute takes all requests.
        counts[60] = hours[nth + 1]
        return self._differences(stream, day, counts)

    def _differences(self, stream: Stream, day: int, counts: list[int]) -> tuple[Flow | None, ...]:
        # Most minutes of a small stream have no request: for those no flow is worked out.
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
