"""Sums and products of money without rounding."""

from decimal import Context

# OpenAI sends up to 34 digits; the default context would round sums to 28.
EXACT = Context(prec=120)
"""Adds, subtracts and multiplies amounts exactly."""
