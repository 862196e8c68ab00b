"""What the simulated OpenAI charges: a small price table of its own, shaped like the real one of
2026.

It only has to be consistent with itself; the exporter's own estimates come from elsewhere.
"""

from dataclasses import dataclass
from decimal import Decimal

_MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for one token; batches cost half."""

    input: Decimal
    cached: Decimal
    output: Decimal
    audio_input: Decimal = Decimal(0)
    audio_output: Decimal = Decimal(0)
    image_input: Decimal = Decimal(0)
    image_output: Decimal = Decimal(0)
    cached_audio: Decimal = Decimal(0)
    cached_image: Decimal = Decimal(0)


def _per_million(*dollars: str) -> Price:
    prices = [Decimal(amount) / _MILLION for amount in dollars]
    return Price(*prices)


TOKENS: dict[str, Price] = {
    "gpt-5-mini-2025-08-07": _per_million("0.25", "0.025", "2"),
    "gpt-4o-2024-08-06": _per_million("2.5", "1.25", "10"),
    "gpt-5-2025-08-07": _per_million("1.25", "0.125", "10"),
    "o3-2025-04-16": _per_million("2", "0.5", "8"),
    "gpt-4o-mini-2024-07-18": _per_million("0.15", "0.075", "0.6"),
    "gpt-4.1-2025-04-14": _per_million("2", "0.5", "8"),
    "gpt-5-nano-2025-08-07": _per_million("0.05", "0.005", "0.4"),
    "o4-mini-2025-04-16": _per_million("1.1", "0.275", "4.4"),
    "gpt-4o-audio-preview-2025-06-03": _per_million(
        "2.5", "1.25", "10", "40", "80", "0", "0", "2.5"
    ),
    "gpt-image-1": _per_million("5", "1.25", "0", "0", "0", "10", "40", "0", "2.5"),
    "text-embedding-3-large": _per_million("0.13", "0", "0"),
    "text-embedding-3-small": _per_million("0.02", "0", "0"),
    "omni-moderation-2024-09-26": _per_million("0", "0", "0"),
}
FINE_TUNED = _per_million("0.3", "0.15", "1.2")
"""Of every model that is not in the table, which the simulation only has as fine-tunes."""

CHARACTER = Decimal("0.00003")
AUDIO_SECOND = Decimal("0.0001")
IMAGE = Decimal("0.04")
SESSION = Decimal("0.03")
FILE_SEARCH = Decimal("0.0025")
WEB_SEARCH = Decimal("0.01")
GIBIBYTE_HOUR = Decimal("0.0042")
SUPPORT_DAY = Decimal("3.2877")
"""A charge of the whole organization, which no project accounts for."""
