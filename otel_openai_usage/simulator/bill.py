"""What a stream's usage costs, line by line."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from otel_openai_usage.simulator import prices
from otel_openai_usage.simulator.traffic import Flow
from otel_openai_usage.simulator.workloads import Stream

_HALF = Decimal("0.5")
_MILLIONTH = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Charge:
    """One line of a bill: so much of something, and what it costs in US dollars. `unit` as OpenAI's
    `quantity_unit`.
    """

    line_item: str
    quantity: Decimal
    unit: str | None
    cost: Decimal


def _charge(line_item: str, quantity: int, unit: str | None, price: Decimal) -> Charge:
    return Charge(line_item, Decimal(quantity), unit, quantity * price)


def _tokens(stream: Stream, flow: Flow) -> Iterator[Charge]:
    into, out, cached, audio_in, audio_out, _, _ = flow[:7]
    image_in, image_out, cached_audio, cached_image, _ = flow[7:]
    model = stream.model or ""
    price = prices.TOKENS.get(model, prices.FINE_TUNED)
    # OpenAI's Batch API costs half of the ordinary price.
    factor = _HALF if stream.work.dims.get("batch") == "true" else 1
    # `input_tokens` includes the cached, audio and image tokens, which have their own prices: what
    # is billed as text is the rest.
    text_in = into - cached - audio_in - image_in
    text_out = out - audio_out - image_out
    cached_text = cached - cached_audio - cached_image
    # The spelling follows OpenAI's line items: "gpt-4o, cached input", but "gpt-image-1 image, input".
    lines = (
        (", input", text_in, price.input),
        (", cached input", cached_text, price.cached),
        (", output", text_out, price.output),
        (" audio, input", audio_in, price.audio_input),
        (" audio, output", audio_out, price.audio_output),
        (" audio, cached input", cached_audio, price.cached_audio),
        (" image, input", image_in, price.image_input),
        (" image, cached input", cached_image, price.cached_image),
        (" image, output", image_out, price.image_output),
    )
    for name, quantity, token_price in lines:
        if quantity:
            yield _charge(model + name, quantity, "tokens", token_price * factor)


def _input(stream: Stream, flow: Flow) -> Iterator[Charge]:
    model = stream.model or ""
    price = prices.TOKENS[model]
    yield _charge(f"{model}, input", flow[0], "tokens", price.input)


def _flat(
    name: str, unit: str | None, price: Decimal
) -> Callable[[Stream, Flow], Iterator[Charge]]:
    """A bill of one line: the first measure of the endpoint times `price`."""

    def charge(stream: Stream, flow: Flow) -> Iterator[Charge]:
        line_item = name.format(model=stream.model)
        yield _charge(line_item, flow[0], unit, price)

    return charge


# An endpoint that is missing here costs nothing: a new row of the endpoint table needs no price.
_BILLS: dict[str, Callable[[Stream, Flow], Iterator[Charge]]] = {
    "completions": _tokens,
    "decisions": _tokens,
    "embeddings": _input,
    "moderations": _input,
    "images": _flat("{model}, images", "images", prices.IMAGE),
    "audio_speeches": _flat("{model}, characters", "characters", prices.CHARACTER),
    "audio_transcriptions": _flat("{model}, duration", "duration_seconds", prices.AUDIO_SECOND),
    "code_interpreter_sessions": _flat("code interpreter sessions", None, prices.SESSION),
    "file_search_calls": _flat("file search tool calls", None, prices.FILE_SEARCH),
    "web_search_calls": _flat("web search tool calls", None, prices.WEB_SEARCH),
}


def charges(stream: Stream, flow: Flow) -> list[Charge]:
    """The lines of what a stream used; none for an endpoint that has no price here."""
    bill = _BILLS.get(stream.work.endpoint)
    if bill is None:
        return []
    return list(bill(stream, flow))


def storage(byte_hours: int) -> Charge:
    """The line of vector stores, for the sum of their bytes over hours."""
    gibibyte_hours = Decimal(byte_hours) / 2**30
    # Rounded before it is priced, so that quantity times price is the cost on the bill.
    quantity = gibibyte_hours.quantize(_MILLIONTH)
    cost = quantity * prices.GIBIBYTE_HOUR
    return Charge("file search, storage", quantity, "gibibyte_hours", cost)


def support(minutes: int) -> Charge:
    """The line of the organization's support contract, for so many minutes of a day."""
    share = prices.SUPPORT_DAY * minutes / 1440
    # It has a cost but no quantity: OpenAI has such charges of the whole organization, too.
    return Charge("priority support", Decimal(0), None, share.quantize(_MILLIONTH))
