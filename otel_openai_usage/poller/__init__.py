"""One loop per source: poll, book, wait. A known failure is told and waited out; a bug ends the
run.
"""

from otel_openai_usage.poller.coverage import CoveragePoll
from otel_openai_usage.poller.intake import Intake, metered_books
from otel_openai_usage.poller.keeper import Clock, Keeper, Telemetry
from otel_openai_usage.poller.loop import Loop
from otel_openai_usage.poller.names import LimitsPoll, NamesPoll
from otel_openai_usage.poller.trouble import Trouble
from otel_openai_usage.poller.usage import UsagePoll, load_days

__all__ = [
    "Clock",
    "CoveragePoll",
    "Intake",
    "Keeper",
    "LimitsPoll",
    "Loop",
    "NamesPoll",
    "Telemetry",
    "Trouble",
    "UsagePoll",
    "load_days",
    "metered_books",
]
