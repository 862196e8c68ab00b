"""`python -m otel_openai_usage` is the command `otel-openai-usage`."""

from otel_openai_usage.cli import main

main()
