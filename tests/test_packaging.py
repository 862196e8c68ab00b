"""What is published is whole: the wheel runs in an empty environment, and the sources can build it."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "otel_openai_usage"
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT: dict[str, Any] = PYPROJECT["project"]
DEVELOPMENT: list[str] = PYPROJECT["dependency-groups"]["dev"]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="session")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds the wheel and its dependencies, nothing else."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=True)
    wheel = next(built.glob("*.whl"))
    subprocess.run(
        [
            folder / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--constraint",
            ROOT / "constraints.txt",
            wheel,
        ],
        check=True,
        capture_output=True,
    )
    return folder / "bin"


def imported(folder: Path) -> Iterator[str]:
    """The top-level names that a folder's modules import."""
    for module in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module.split(".")[0]


def provided(requirements: list[str]) -> set[str]:
    """The top-level names that installed distributions bring."""
    names = [re.split(r"[\[>=<~ ]", text)[0] for text in requirements]
    files = [
        file
        for name in names
        for file in importlib.metadata.files(name) or ()
        if file.suffix in {".py", ".so"}
    ]
    return {file.parts[0].split(".")[0] for file in files}


@pytest.mark.parametrize(
    ("folder", "group"), [("otel_openai_usage", []), ("tests", DEVELOPMENT), ("tools", DEVELOPMENT)]
)
def test_every_import_is_a_declared_dependency(folder: str, group: list[str]) -> None:
    """What is imported, pyproject.toml asks for; nothing is there by luck of another's dependency."""
    ours = {"otel_openai_usage", "otel_openai_metering", "clients", "tests", "tools"} | set(
        sys.stdlib_module_names
    )
    extras = [text for texts in PROJECT["optional-dependencies"].values() for text in texts]
    asked = PROJECT["dependencies"] + extras + group
    assert set(imported(ROOT / folder)) - provided(asked) - ours == set()


def test_the_wheel_runs_in_an_empty_environment(installed: Path) -> None:
    """`pip install` of the wheel alone gives a command that answers --help and --version."""
    version = subprocess.run(
        [installed / "otel-openai-usage", "--version"], capture_output=True, text=True, check=True
    ).stdout
    usage = subprocess.run(
        [installed / "otel-openai-usage", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert PROJECT["version"] in version
    assert {
        verb
        for verb in ("run", "check", "simulate", "demo", "metrics", "config")
        if verb in usage.split()
    } == {
        "run",
        "check",
        "simulate",
        "demo",
        "metrics",
        "config",
    }


def test_the_wheel_runs_as_a_module(installed: Path) -> None:
    """`python -m otel_openai_usage` is the same command."""
    done = subprocess.run(
        [installed / "python", "-m", "otel_openai_usage", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert PROJECT["version"] in done.stdout


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    """The wheel has every module, py.typed and the licence; no tests."""
    names = set(zipfile.ZipFile(next(built.glob("*.whl"))).namelist())
    modules = {str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py")}
    assert modules <= names
    assert "otel_openai_usage/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    ours = {"otel_openai_usage", "otel_openai_metering"}  # the helper, see docs/decisions
    assert {name.split("/")[0].split("-")[0] for name in names} == ours


def test_the_sdist_has_what_it_takes(built: Path) -> None:
    """From the sdist one can build, test and read: package, tests, Makefile, documents."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert names >= {
        "pyproject.toml",
        "Makefile",
        "README.md",
        "LICENSE",
        "constraints.txt",
        "collector-config.yaml",
        "tests/conftest.py",
        "otel_openai_usage/py.typed",
        "clients/python/pyproject.toml",
        "clients/python/src/otel_openai_metering/py.typed",
        "deploy/collector/builder.yaml",
        "tools/install-real-servers.sh",
    }
