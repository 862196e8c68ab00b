"""Numbers as people read them: $12.3k, 4.2M. Tables and titles have the exact values."""

import re
from datetime import date
from math import isfinite

from otel_openai_usage.domain.model import utc

NONE = "–"
_SIGNS = {"usd": "$", "eur": "€", "gbp": "£"}
_AGES = ((172800, 86400, "days"), (7200, 3600, "h"), (120, 60, "min"))
"""The least age in seconds, the seconds of its unit, and the unit's name."""
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
    """Three significant digits, without zeros at the end."""
    text = _three_digits(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _scaled(value: float) -> str:
    """Three significant digits with a letter for the thousands; for values of at least 1000."""
    for step, letter in _STEPS:
        if value >= step * 0.9995:
            return f"{_three_digits(value / step)}{letter}"
    raise ValueError(f"{value}: expected at least 1000")


def _three_digits(value: float) -> str:
    whole = f"{abs(value):.0f}"
    decimals = max(0, 3 - len(whole))
    return f"{value:,.{decimals}f}"


def money(value: float | None, currency: str = "usd") -> str:
    """Money for a headline: $0.42, $123.45, $4,321, $12.3k, $1.23M.

    A fraction of a cent is not rounded to 0: <$0.01.
    """
    if value is None or not isfinite(value):
        return NONE
    size = abs(value)
    if 0 < size < 0.01:
        return _under_a_cent(value, currency)
    if size < 1000:
        text = f"{size:,.2f}"
    # From here on the rounded number would have five digits.
    elif size < 9999.5:
        text = f"{size:,.0f}"
    else:
        text = _scaled(size)
    return _minus(value) + _with_currency(text, currency)


def _under_a_cent(value: float, currency: str) -> str:
    if value > 0:
        return "<" + _with_currency("0.01", currency)
    return ">" + _with_currency("-0.01", currency)


def brief(value: float, currency: str = "usd") -> str:
    """Money on an axis, without zero cents."""
    text = money(value, currency)
    return re.sub(r"\.0+(?=\D*$)", "", text)


def exact(value: float | None, currency: str = "usd") -> str:
    """Money to the cent, in full."""
    if value is None:
        return NONE
    amount = _with_currency(f"{abs(value):,.2f}", currency)
    return f"{_minus(value)}{amount}"


def change(value: float | None, currency: str = "usd") -> str:
    """Money with its sign."""
    if value is None:
        return NONE
    plus = "+" if value > 0 else ""
    return plus + money(value, currency)


def _with_currency(text: str, currency: str) -> str:
    sign = _SIGNS.get(currency)
    return f"{sign}{text}" if sign else f"{text} {currency.upper()}"


def _minus(value: float) -> str:
    return "−" if value < 0 else ""


def signed(value: int) -> str:
    """A count in full, with a minus sign if it is negative."""
    return f"{_minus(value)}{abs(value):,}"


def percent(share: float | None, *, signed: bool = False) -> str:
    """A share of one as a percentage. With `signed`, growth of more than tenfold is a factor."""
    if share is None or not isfinite(share):
        return NONE
    if signed and share >= 9.995:
        return f"×{share + 1:.0f}"
    size = abs(share)
    digits = 1 if 0 < size < 0.0995 else 0
    text = f"{size * 100:.{digits}f}"
    if float(text) == 0:
        # What is rounded to 0 has no sign.
        return f"{text}%"
    plus = "+" if signed and share > 0 else ""
    return f"{plus}{_minus(share)}{text}%"


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
    for least, unit, name in _AGES:
        if seconds >= least:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"
