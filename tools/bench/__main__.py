"""`python -m tools.bench [--quick] [--only CASE] [--dry]`: measure, print one table, write it to
docs/performance.md.

`--quick` has fewer repetitions and no day of churn; `--only` runs one case (yardsticks, live,
history, day, churn, start); neither of them, nor `--dry`, writes the page.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tools.bench import cases
from tools.bench.processes import ROOT, collector
from tools.bench.table import table, write

SIZES = (1_000, 10_000, 100_000)
PAGE = ROOT / "docs" / "performance.md"


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--dry", action="store_true")
    parser.add_argument(
        "--only", choices=("yardsticks", "live", "history", "day", "churn", "start")
    )
    asked = parser.parse_args()
    figures = cases.Figures(SIZES, times=3 if asked.quick else 5)
    with tempfile.TemporaryDirectory() as folder, collector(Path(folder)) as endpoint:
        if endpoint is None:
            print("  no Collector (`make servers` builds it): OTLP is left out")
        plan: list[tuple[str, Callable[[], None]]] = [("start", partial(cases.start, figures))]
        for series in SIZES:
            plan.append(("live", partial(cases.live, figures, series, None)))
            if endpoint:
                plan.append(("live", partial(cases.live, figures, series, endpoint)))
        plan += [
            ("yardsticks", partial(cases.yardsticks, figures, Path(folder))),
            ("history", partial(cases.history, figures)),
            ("day", partial(cases.day, figures)),
        ]
        if not asked.quick:
            plan.append(("churn", partial(cases.churn, figures)))
        for name, case in plan:
            if asked.only in (None, name):
                print(f"{name} …", flush=True)
                case()
    text = table(figures.found, SIZES)
    print(f"\n{text}")
    if not (asked.quick or asked.only or asked.dry):
        write(PAGE, text)
        print(f"\nwritten to {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
