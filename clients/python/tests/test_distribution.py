"""The helper installs alone, is small, needs only the standard library, and has its old name, too."""

import ast
import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from clients.python.tests.conftest import Endpoint

CLIENT = Path(__file__).parents[1]
ROOT = CLIENT.parents[1]
PACKAGE = CLIENT / "src" / "otel_openai_metering"
LIMIT = 1_000_000


def wheel(project: Path, folder: Path) -> Path:
    """Build a wheel, which must need no network."""
    command = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(project)]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the helper."""
    return wheel(CLIENT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def alone(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the helper and nothing else, not even pip."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    command = ["-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--no-index", str(built)]  # fmt: skip
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return folder


def names(file: Path) -> dict[str, bytes]:
    """The package's files in a wheel, with what is in them."""
    with zipfile.ZipFile(file) as archive:
        found = archive.namelist()
        return {name: archive.read(name) for name in found if name.startswith(PACKAGE.name + "/")}


def test_the_helper_alone_is_small(alone: Path) -> None:
    """A fresh environment with it, compiled, is under 1 MB."""
    files = [file for file in alone.rglob("*") if file.is_file() and not file.is_symlink()]
    assert any(file.name == "meter.py" for file in files)
    assert any(file.suffix == ".pyc" for file in files)
    assert sum(file.stat().st_size for file in files) < LIMIT


def test_the_helper_alone_works(alone: Path, endpoint: Endpoint) -> None:
    """It sends an event, and brings no other module with it."""
    code = f"""
from otel_openai_metering import Meter
with Meter({endpoint.url!r}, spool=False) as meter:
    meter.record({{"id": "r", "usage": {{"prompt_tokens": 13}}}}, subject="alice")
    list(meter.stream(iter([{{"id": "s", "choices": [{{"text": "four"}}]}}]), subject="alice"))
"""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([alone / "bin" / "python", "-c", code], env=environment, check=True)
    assert [event["id"] for event in endpoint.events] == ["r", "s"]


def test_the_wheel_holds_the_package(built: Path) -> None:
    """Every module, the type marker and the licence; no tests."""
    modules = {f"{PACKAGE.name}/{path.name}" for path in PACKAGE.glob("*.py")}
    assert names(built).keys() == {*modules, f"{PACKAGE.name}/py.typed"}
    with zipfile.ZipFile(built) as archive:
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())


def test_the_exporter_s_wheel_holds_the_same(built: Path, tmp_path: Path) -> None:
    """File by file: whichever of the two was installed last, the helper is the same."""
    assert names(wheel(ROOT, tmp_path)) == names(built)
    helper, exporter = [
        tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        for folder in (CLIENT, ROOT)
    ]
    assert helper["version"] == exporter["version"]
    assert (
        helper["optional-dependencies"]["tiktoken"] == exporter["optional-dependencies"]["metering"]
    )
    assert helper["dependencies"] == []
    assert (CLIENT / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_helper_needs_only_the_standard_library() -> None:
    """And tiktoken, if it is there; nothing of the exporter."""
    imported: set[str] = set()
    for module in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    assert imported - sys.stdlib_module_names == {PACKAGE.name, "tiktoken"}


def test_the_old_name_works_and_warns() -> None:
    """`otel_openai_usage.metering` has the same classes, and says where they are now."""
    code = """
import otel_openai_metering as new
import otel_openai_usage.metering as old
assert all(getattr(old, name) is getattr(new, name) for name in new.__all__)
"""
    command = [sys.executable, "-W", "default", "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (
        "DeprecationWarning: otel_openai_usage.metering is now otel_openai_metering" in ran.stderr
    )
    quiet = "import otel_openai_metering, sys; assert 'otel_openai_usage' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", quiet], check=True)
