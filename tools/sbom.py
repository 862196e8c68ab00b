"""Write the bill of materials of an installation, CycloneDX 1.6: `python -m tools.sbom >
otel-openai-usage.cdx.json`.

It lists what this interpreter would run: otel-openai-usage and all that it requires, without
extras. Run it with the interpreter of the installation that it is to describe. No time and no
serial number, so that the same installation gives the same bytes.
"""

import json
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = "otel-openai-usage"


def required(name: str) -> Iterator[str]:
    """The names of what a distribution requires here."""
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield canonicalize_name(requirement.name)


def closure(name: str) -> dict[str, list[str]]:
    """A distribution and all that it needs, each with what it requires."""
    found: dict[str, list[str]] = {}
    waiting = [name]
    while waiting:
        if (current := waiting.pop()) not in found:
            found[current] = sorted(set(required(current)))
            waiting += found[current]
    return dict(sorted(found.items()))


def purl(installed: Distribution) -> str:
    """Its package URL."""
    return f"pkg:pypi/{canonicalize_name(installed.metadata['Name'])}@{installed.version}"


def component(installed: Distribution) -> dict[str, object]:
    """A distribution as CycloneDX says it."""
    licences = installed.metadata.get_all("License-Expression") or []
    said: dict[str, object] = (
        {"licenses": [{"expression": licence} for licence in licences]} if licences else {}
    )
    name = canonicalize_name(installed.metadata["Name"])
    return {
        "type": "library",
        "bom-ref": purl(installed),
        "name": name,
        "version": installed.version,
        "purl": purl(installed),
        **said,
    }


def bill() -> dict[str, object]:
    """The whole bill."""
    needs = closure(ROOT)
    here = {name: distribution(name) for name in needs}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component(here[ROOT]) | {"type": "application"}},
        "components": [component(found) for name, found in here.items() if name != ROOT],
        "dependencies": [
            {"ref": purl(here[name]), "dependsOn": [purl(here[need]) for need in wanted]}
            for name, wanted in needs.items()
        ],
    }


if __name__ == "__main__":
    json.dump(bill(), sys.stdout, indent=2)
    sys.stdout.write("\n")
