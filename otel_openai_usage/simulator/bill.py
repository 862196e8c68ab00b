"""What a stream's usage costs, line by line."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from otel_openai_usage.simulator import prices
from otel_openai_usage.simulator.traffic import Flow
from otel_openai_usage.simulator.workloads import Stream

_HALF = Decimal("0.5")


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
    into, out, cached, audio_in, audio_out, _, _, image_in, image_out = flow
    model = stream.model or ""
    price = prices.TOKENS.get(model, prices.FINE_TUNED)
    factor = _HALF if stream.work.dims.get("batch") == "true" else 1
    lines = (
        ("input", into - cached - audio_in - image_in, price.input),
        ("cached input", cached, price.cached),
        ("output", out - audio_out - image_out, price.output),
        ("audio, input", audio_in, price.audio_input),
        ("audio, output", audio_out, price.audio_output),
        ("image, input", image_in, price.image_input),
        ("image, output", image_out, price.image_output),
    )
    for name, quantity, each in lines:
        if quantity:
            yield _charge(
                f"{model}, {name}" if "," not in name else f"{model} {name}",
                quantity,
                "tokens",
                each * factor,
            )


def _input(stream: Stream, flow: Flow) -> Iterator[Charge]:
    model = stream.model or ""
    yield _charge(f"{model}, input", flow[0], "tokens", prices.TOKENS[model].input)


def _flat(
    name: str, unit: str | None, price: Decimal
) -> Callable[[Stream, Flow], Iterator[Charge]]:
    def charge(stream: Stream, flow: Flow) -> Iterator[Charge]:
        yield _charge(name.format(model=stream.model), flow[0], unit, price)

    return charge


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
    return list(bill(stream, flow)) if bill else []


def storage(byte_hours: int) -> Charge:
    """The line of vector stores, for the sum of their bytes over hours."""
    quantity = (Decimal(byte_hours) / 2**30).quantize(Decimal("0.000001"))
    return Charge(
        "file search, storage", quantity, "gibibyte_hours", quantity * prices.GIBIBYTE_HOUR
    )


def support(minutes: int) -> Charge:
    """The line of the organization's support contract, for so many minutes of a day."""
    share = prices.SUPPORT_DAY * minutes / 1440
    return Charge("priority support", Decimal(0), None, share.quantize(Decimal("0.000001")))
