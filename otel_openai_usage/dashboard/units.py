"""Numbers as people read them: $12.3k, 4.2M. Exact values stand beside them in tables and titles."""

import re
from datetime import date
from math import isfinite

from otel_openai_usage.domain.model import utc

NONE = "–"
_SIGNS = {"usd": "$", "eur": "€", "gbp": "£"}
_STEPS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def count(value: float | None) -> str:
    """A count with three significant digits: 950, 4.21k, 1.2M."""
    if value is None or not isfinite(value):
        return NONE
    if abs(value) < 1000:
        return f"{value:.0f}"
    for step, letter in _STEPS:
        if abs(value) >= step * 0.9995:
            return f"{_significant(value / step)}{letter}"
    return f"{value:.0f}"


def _significant(value: float) -> str:
    text = _three(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _scaled(value: float) -> str:
    step, letter = next((step, letter) for step, letter in _STEPS if value >= step * 0.9995)
    return f"{_three(value / step)}{letter}"


def _three(value: float) -> str:
    return f"{value:,.{max(0, 3 - len(f'{abs(value):.0f}'))}f}"


def money(value: float | None, currency: str = "usd") -> str:
    """Money for a headline: $0.42, $123.45, $4,321, $12.3k, $1.23M; a fraction of a cent is not
    rounded to nothing.
    """
    if value is None or not isfinite(value):
        return NONE
    size = abs(value)
    if 0 < size < 0.01:
        text = "<0.01" if value > 0 else ">-0.01"
        return f"{text[0]}{_signed(text[1:], currency)}"
    text = f"{size:,.2f}" if size < 1000 else f"{size:,.0f}" if size < 9999.5 else _scaled(size)
    return ("−" if value < 0 else "") + _signed(text, currency)


def brief(value: float, currency: str = "usd") -> str:
    """Money on an axis: as short as it can be said."""
    text = money(value, currency)
    return re.sub(r"\.0+(?=\D*$)", "", text)


def exact(value: float | None, currency: str = "usd") -> str:
    """Money to the cent, in full."""
    return (
        NONE
        if value is None
        else ("−" if value < 0 else "") + _signed(f"{abs(value):,.2f}", currency)
    )


def change(value: float | None, currency: str = "usd") -> str:
    """Money with its sign."""
    if value is None:
        return NONE
    return money(value, currency) if value <= 0 else f"+{money(value, currency)}"


def _signed(text: str, currency: str) -> str:
    return f"{_SIGNS[currency]}{text}" if currency in _SIGNS else f"{text} {currency.upper()}"


def signed(value: int) -> str:
    """A count in full, with a minus sign where it is below 0."""
    return ("−" if value < 0 else "") + f"{abs(value):,}"


def percent(share: float | None, *, signed: bool = False) -> str:
    """A share of one as a percentage; what grew more than tenfold is told as a factor."""
    if share is None or not isfinite(share):
        return NONE
    if signed and share >= 9.995:
        return f"×{share + 1:.0f}"
    text = f"{abs(share) * 100:.1f}" if abs(share) < 0.0995 and share else f"{abs(share) * 100:.0f}"
    sign = ("+" if signed and share > 0 else "−" if share < 0 else "") if float(text) else ""
    return f"{sign}{text}%"


def day(unix: float) -> str:
    """7 Nov."""
    return short(utc(unix).date())


def short(when: date) -> str:
    """7 Nov."""
    return f"{when.day} {when:%b}"


def long(when: date) -> str:
    """7 Nov 2026."""
    return f"{when.day} {when:%b %Y}"


def ago(seconds: float) -> str:
    """How long ago: 40 s, 12 min, 5 h, 3 days."""
    for step, unit in ((172800, 86400), (7200, 3600), (120, 60)):
        if seconds >= step:
            name = {86400: "days", 3600: "h", 60: "min"}[unit]
            return f"{seconds / unit:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"
