#!/bin/bash
# Runs the tests, without the real servers, on every Python that pyproject.toml names: 3.12 and 3.13
# with the newest dependencies, 3.11 with the lowest that the metadata allows.
#
#   tools/test-pythons.sh                         everything
#   ONLY=3.13 tools/test-pythons.sh tests/web     one of 3.12, 3.13, lowest; only these tests
#
# The environments are made in the user's cache, outside the checkout, and made anew when
# pyproject.toml changed. A Python that is not installed is skipped, and that is said.
set -euo pipefail
cd "$(dirname "$0")/.."
cache="${XDG_CACHE_HOME:-$HOME/.cache}/otel-openai-usage/pythons"
mkdir -p "$cache"

find_python() { # prints the interpreter of a version, from the path or from pyenv
    command -v "python$1" || ls "$HOME"/.pyenv/versions/"$1".*/bin/"python$1" 2>/dev/null | tail -n 1
}

run() { # name, version, constraints; the rest goes to pytest
    local name=$1 version=$2 constraints=$3
    shift 3
    if [ -n "${ONLY:-}" ] && [ "$ONLY" != "$name" ]; then return; fi
    local python
    python=$(find_python "$version")
    if [ -z "$python" ]; then
        echo "skipped: Python $version is not installed"
        return
    fi
    local venv="$cache/$name"
    local wanted
    wanted=$(cat pyproject.toml "$constraints" | sha256sum)
    if [ "$(cat "$venv/.wanted" 2>/dev/null)" != "$wanted" ]; then
        echo "== $name: installing"
        rm -rf "$venv"
        "$python" -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --upgrade 'pip>=25.1'
        "$venv/bin/python" -m pip install --quiet --constraint "$constraints" \
            --editable '.[dashboard,metering]' --group dev
        echo "$wanted" > "$venv/.wanted"
    fi
    echo "== $name: $("$venv/bin/python" --version)"
    "$venv/bin/python" -m pytest -q -p no:cacheprovider -m "not long and not real" "$@" || failed=1
}

failed=0
python3 tools/lowest.py > "$cache/lowest.txt"
run 3.12 3.12 /dev/null "$@"
run 3.13 3.13 /dev/null "$@"
run lowest 3.11 "$cache/lowest.txt" "$@"
exit "$failed"
