"""Prints constraints that hold every dependency of pyproject.toml at its lower bound: `name==bound`
for what users install, the extras included.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def lowest(requirements: list[str]) -> list[str]:
    """The lower bound of each requirement that has one, as a constraint."""
    found = []
    for requirement in requirements:
        name = re.split(r"[\[<>=~!; ]", requirement, maxsplit=1)[0]
        bound = re.search(r">=\s*([^,; ]+)", requirement)
        if bound is not None:
            found.append(f"{name}=={bound[1]}")
    return found


def main() -> None:
    """Print them, one a line."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        requirements += extra
    sys.stdout.write("".join(f"{line}\n" for line in sorted(set(lowest(requirements)))))


if __name__ == "__main__":
    main()
