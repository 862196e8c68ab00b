"""Durations, sizes, placeholders and YAML: the small things that a configuration is made of."""

import contextlib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.config import load
from otel_openai_usage.config.document import parse, read, typed
from otel_openai_usage.config.placeholders import Unresolved, expand, unset
from otel_openai_usage.config.quantities import (
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)
from otel_openai_usage.config.secrets import redact
from otel_openai_usage.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("3h", 10_800_000), ("7d", 604_800_000), ("0s", 0), ("1h30m", 5_400_000),
     ("1d2h3m4s5ms", 93_784_005), ("0000000000000000000000001d", 86_400_000), ("90s", 90_000), ("007s", 7_000), ("1m500ms", 60_500)],
)  # fmt: skip
def test_durations_are_numbers_with_units(text: str, milliseconds: int) -> None:
    """Each unit means what it says, and several add up from long to short."""
    assert parse_duration(text) == timedelta(milliseconds=milliseconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "s",
        "5x",
        "5 s",
        "-5s",
        "1.5h",
        "30s5m",
        "5s5s",
        "٣s",
        "5S",
        None,
        5,
        True,
        [],
        "99999999d",
        "1" * 400 + "s",
    ],
)
def test_nonsense_durations_are_refused(text: object) -> None:
    """What is no duration, or longer than a hundred years, raises ValueError."""
    with pytest.raises(ValueError, match=r"^expected a duration"):
        parse_duration(text)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=36_500)))
def test_a_duration_survives_being_written(duration: timedelta) -> None:
    """What `format_duration` writes, `parse_duration` reads, to the millisecond."""
    whole = duration - duration % timedelta(milliseconds=1)
    assert parse_duration(format_duration(duration)) == whole


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1MiB", 2**20),
        ("64KiB", 2**16),
        ("10MB", 10**7),
        ("5", 5),
        ("5B", 5),
        (7, 7),
        ("1GiB", 2**30),
    ],
)
def test_sizes_are_bytes(text: object, size: int) -> None:
    """A size is a number of bytes, or has a unit."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "1 MiB", "1mib", "-1", -1, True, None, "1.5MiB", "MiB"])
def test_nonsense_sizes_are_refused(text: object) -> None:
    """What is no size raises ValueError."""
    with pytest.raises(ValueError, match=r"^expected a size"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=2**50))
def test_a_size_survives_being_written(size: int) -> None:
    """What `format_size` writes, `parse_size` reads."""
    assert parse_size(format_size(size)) == size


ENV = {
    "HOST": "example.org",
    "EMPTY": "",
    "PORT": "9100",
    "TRICK": "${env:HOST} $$ {a: [",
    "LIST": "[a, b]",
    "SEVEN": "007",
}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("plain", "plain"),
        ("${env:HOST}", "example.org"),
        ("${HOST}", "example.org"),
        ("https://${env:HOST}:${env:PORT}/v1", "https://example.org:9100/v1"),
        ("${env:NONE:-there}", "there"),
        ("${env:HOST:-there}", "example.org"),
        ("a${env:EMPTY:-there}b", "ab"),
        ("${env:NONE:-}", None),
        ("${env:EMPTY}", None),
        ("a${env:NONE:-}b", "ab"),
        ("${env:NONE:-${env:HOST}}", "example.org"),
        ("${env:NONE:-${env:NEITHER:-last}}!", "last!"),
        ("${env:HOST:-${env:NEITHER}}", "example.org"),
        ("${env:NONE:-a:-b}", "a:-b"),
        ("$$", "$"),
        ("$${env:HOST}", "${env:HOST}"),
        ("$$$${env:NONE:-x}", "$${env:NONE:-x}"),
        ("costs 5$", "costs 5$"),
        ("$HOST", "$HOST"),
        ("a } b", "a } b"),
        ("${env:TRICK}", "${env:HOST} $$ {a: ["),
        ("${env:SEVEN}", "007"),
    ],
)
def test_placeholders_are_replaced(text: str, found: object) -> None:
    """Variables, defaults and `$$` are replaced as in the Collector; what a variable holds stays as
    it is.
    """
    assert expand(text, ENV, typed) == found


def test_a_variable_that_is_not_set_is_nothing(tmp_path: Path) -> None:
    """As in the Collector; it is said in a warning with its path."""
    assert (expand("a${env:NONE}b", ENV, typed), expand("${env:NONE}", ENV, typed)) == ("ab", None)
    assert unset("a${env:NONE}${env:HOST}$${env:NO}${env:NONE:-x}", ENV) == ["NONE"]
    file = tmp_path / "c.yaml"
    file.write_text("prometheus: {port: '${env:NOPE}'}")
    settings = load(file, {})
    assert settings.prometheus.port == 9185
    assert settings.warnings == (
        "prometheus.port: the environment variable NOPE is not set, so nothing stands for it",
    )


@pytest.mark.parametrize(
    "text",
    ["${env:HOST", "${env:}", "${}", "${file:/etc/passwd}", "${env:A B}"],
)
def test_placeholders_that_cannot_be_replaced_are_told(text: str) -> None:
    """What is no placeholder of ours raises Unresolved."""
    with pytest.raises(Unresolved):
        expand(text, ENV, typed)


@given(st.text().filter(lambda text: "$" not in text), st.text())
def test_text_without_a_dollar_is_itself(text: str, value: str) -> None:
    """Only `$` begins anything, and a value is never looked at again."""
    assert expand(text, {"A": value}, typed) == text
    assert expand(f"<{text}${{env:A}}>", {"A": value}, typed) == f"<{text}{value}>"


@given(st.text())
def test_a_doubled_dollar_escapes_any_text(text: str) -> None:
    """Doubling every `$` gives any text back."""
    assert expand(text.replace("$", "$$"), {}, typed) == text


@given(st.text(alphabet="${}:-envAB\\ ", max_size=30))
def test_no_text_breaks_replacing(text: str) -> None:
    """Whatever stands in a value, it is replaced or refused with a sentence."""
    with contextlib.suppress(Unresolved):
        expand(text, {"A": "x"}, typed)


@pytest.mark.parametrize(
    ("text", "value"),
    [("a: no", "no"), ("a: on", "on"), ("a: 010", 10), ("a: 2026-01-01", "2026-01-01"), ("a: 1:30", "1:30"), ("a: true", True),
     ("a: ~", None),
     ("a:", None), ("a: 1.5", 1.5), ("a: 1e3", 1000.0), ("a: '5'", "5"), ("a: 1_000", "1_000")],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    """Country codes, dates and times of day stay text; a leading zero is not octal."""
    assert parse(text, {}).tree == {"a": value}


def test_a_key_may_stand_only_once() -> None:
    """The second `usage:` of a file is refused with its line, at any depth; merging is no second
    time.
    """
    with pytest.raises(ConfigError, match="line 3, column 1: the key 'usage' stands twice"):
        parse("usage: {}\ncosts: {}\nusage: {}\n", {})
    with pytest.raises(ConfigError, match="'b' stands twice"):
        parse("a: {b: 1, b: 2}", {})
    assert parse("x: &x {b: 1}\na: {<<: *x, b: 2}", {}).tree["a"] == {"b": 2}


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: b: c",
        "\ta: 1",
        "a: !!python/object:os.system x",
        "{a}: b: ",
        "a: 1\n--- \nb: 2",
        "a: \x00",
        "? [a]\n: b",
    ],
)
def test_malformed_yaml_is_told_with_its_place(text: str) -> None:
    """What is not YAML, or not one document of it, is one problem that names the file."""
    with pytest.raises(ConfigError) as caught:
        parse(text, {}, "my.yaml")
    assert caught.value.problems[0].startswith("my.yaml")
    assert "\n" not in caught.value.problems[0]


@pytest.mark.parametrize("text", ["- a", "text", "5", "[]"])
def test_a_file_is_a_mapping(text: str) -> None:
    """A list or a single value at the top is refused."""
    with pytest.raises(ConfigError, match="expected a mapping"):
        parse(text, {})


@pytest.mark.parametrize("text", ["a: &a [*a]", "[" * 3000, "a: " + "[" * 300 + "]" * 300])
def test_depth_is_refused_not_suffered(text: str) -> None:
    """A document inside itself, or far too deep, ends in a sentence or is read; it never ends the
    program.
    """
    with contextlib.suppress(ConfigError):
        parse(text, {})


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~"])
def test_an_empty_file_says_nothing(text: str) -> None:
    """An empty file is an empty configuration."""
    assert parse(text, {}).tree == {}


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    """Missing, a folder, not UTF-8: each a sentence with the path."""
    (tmp_path / "latin").write_bytes(b"a: \xff")
    for name, said in (("missing", "no such file"), ("", "reading it"), ("latin", "UTF-8")):
        with pytest.raises(ConfigError, match=said):
            read(tmp_path / name, {})


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    """Files that Windows editors wrote are read."""
    (tmp_path / "bom").write_bytes(b"\xef\xbb\xbfa: 1")
    assert read(tmp_path / "bom", {}).tree == {"a": 1}


@pytest.mark.parametrize(
    ("text", "shown"),
    [("key sk-admin-abc123_X is", "key **** is"), ("sk-proj-1 sk-svcacct-2", "**** ****"),
     ("an admin key (sk-admin-…)", "an admin key (sk-admin-…)"),
     ("Authorization: Bearer abc.def", "Authorization: Bearer ****"), ("risk-free", "risk-free"), ("sk-abcdef", "****")],
)  # fmt: skip
def test_keys_are_masked(text: str, shown: str) -> None:
    """What looks like a key is masked; words that only mention one are not."""
    assert redact(text) == shown


def test_the_secret_itself_and_logins_in_urls_are_masked() -> None:
    """A key of an unknown form is masked if it is named, and so is a proxy's login."""
    text = "refused: sk-admin*fake. task-force (sk-proj-abc) odd.key http://me:pw@proxy:80/"
    expected = "refused: ****. task-force (****) **** http://****@proxy:80/"
    assert redact(text, "odd.key") == expected
