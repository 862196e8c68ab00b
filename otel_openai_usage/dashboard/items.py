"""What the dashboard shows of a line item of OpenAI's bill: its model and what was charged."""

from otel_openai_usage.domain.line_item import LineItem as Item
from otel_openai_usage.domain.line_item import split

__all__ = ["Item", "split"]
