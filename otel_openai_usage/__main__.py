"""`python -m otel_openai_usage` is the command `otel-openai-usage`."""

import sys
from typing import NoReturn

from otel_openai_usage import stopping


def main() -> NoReturn:
    """The console script. Signals are handled before the rest is imported."""
    stopping.install(sys.argv[1:])
    from otel_openai_usage import cli

    cli.main()


if __name__ == "__main__":
    main()
