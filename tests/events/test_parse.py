"""CloudEvents bodies become events, or a sentence."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.events import Parser, Refused
from tests.events.conftest import event

PARSER = Parser()


def amounts(data: object) -> tuple[object, ...]:
    """What is counted of some data: input, output, input_cached, reasoning, requests."""
    return PARSER.one(json.dumps(event(data=data)).encode())[0].amounts


@pytest.mark.parametrize(
    ("data", "counted"),
    [
        ({"prompt_tokens": 13, "completion_tokens": 7, "total_tokens": 20, "model": "m"}, (13, 7, 0, 0, 1)),
        ({"prompt_tokens": "13", "completion_tokens": "7.0", "total_tokens": "2e1"}, (13, 7, 0, 0, 1)),
        ({"prompt_tokens": 9, "total_tokens": 9}, (9, 0, 0, 0, 1)),
        ({"completion_tokens": 9, "total_tokens": 10}, (1, 9, 0, 0, 1)),
        ({"prompt_tokens": 9, "completion_tokens": 8, "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
          "completion_tokens_details": {"reasoning_tokens": 6}}, (9, 8, 4, 6, 1)),
        ({"input_tokens": 9, "output_tokens": 8, "input_tokens_details": {"cached_tokens": 4}, "output_tokens_details":
          {"reasoning_tokens": 6}, "total_tokens": 17}, (9, 8, 4, 6, 1)),
        ({"input_tokens": 9, "output_tokens": 8, "input_token_details": {"cached_tokens": 4}}, (9, 8, 4, 0, 1)),
        ({"model": "m", "usage": {"input_tokens": 9, "output_tokens": 8}}, (9, 8, 0, 0, 1)),
        ({"input_tokens": 9, "output_tokens": 8, "cached_tokens": 4, "reasoning_tokens": 6}, (9, 8, 4, 6, 1)),
        ({"tokens": 5, "model": "m", "type": "input"}, (5, 0, 0, 0, 1)),
        ({"tokens": "5", "model": "m", "type": "output"}, (0, 5, 0, 0, 1)),
        ({"tokens": 5, "type": "system"}, (5, 0, 0, 0, 1)),
        ({"prompt_tokens": None, "input_tokens_details": None, "something": [1, {"else": True}]}, (0, 0, 0, 0, 1)),
        ({}, (0, 0, 0, 0, 1)), (None, (0, 0, 0, 0, 1)),
    ],
)  # fmt: skip
def test_usage_is_understood_in_every_shape(data: object, counted: tuple[int, ...]) -> None:
    """Chat completions, responses, embeddings, realtime, OpenMeter's tokens; numbers and numeric
    strings; no usage at all.
    """
    assert amounts(data) == counted


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"id": ""}, "id: expected `str` of length >= 1"), ({"id": None}, "object missing required field `id`"),
        ({"source": None}, "object missing required field `source`"), ({"subject": 5}, "subject: expected `str`, got `int`"),
        ({"subject": "s" * 513}, "subject: expected `str` of length <= 512"), ({"type": ""}, "type: expected `str` of length >= 1"),
        ({"specversion": "0.3"}, "specversion: expected '1.0', got '0.3'"),
        ({"time": "yesterday"}, "time: expected a time as in RFC 3339"),
        ({"time": "2026-11-22T00:00:00"}, "time: expected `datetime` with a timezone component"),
        ({"datacontenttype": "text/xml"}, "datacontenttype: expected application/json, got 'text/xml'"),
        ({"data_base64": "e30="}, "data_base64: expected data, a JSON object"),
        ({"data": [1]}, "data: expected `object | null`, got `array`"),
        ({"data": {"input_tokens": {}}}, "data.input_tokens: expected `int | float | str | null`, got `object`"),
        ({"data": {"input_tokens": -1}}, "data.input_tokens: expected a whole number from 0 to 1000000000000, got -1"),
        ({"data": {"input_tokens": 1.5}}, "data.input_tokens: expected a whole number from 0 to 1000000000000, got 1.5"),
        ({"data": {"input_tokens": "nan"}}, "data.input_tokens: expected a whole number from 0 to 1000000000000, got 'nan'"),
        ({"data": {"input_tokens": "many"}}, "data.input_tokens: expected a whole number from 0 to 1000000000000, got 'many'"),
        ({"data": {"input_tokens": "1_000"}}, "data.input_tokens: expected a whole number from 0 to 1000000000000, got '1_000'"),
        ({"data": {"input_tokens": "٣"}}, "data.input_tokens: expected a whole number from 0 to 1000000000000, got '٣'"),
        ({"data": {"input_tokens": 10**13}}, "data.input_tokens: expected a whole number from 0 to 1000000000000, got 10000000000000"),
        ({"data": {"tokens": 5, "type": "x"}},
         "data.type: expected input, prompt, system, output, completion, input_cached, cached, reasoning beside tokens, got 'x'"),
        ({"data": {"total_tokens": 5}},
         "data.total_tokens: cannot be told apart into input and output; send input_tokens and output_tokens too"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(changed: dict[str, object], said: str) -> None:
    """The attribute, what was expected and what was met; in a batch also which event."""
    with pytest.raises(Refused) as single:
        PARSER.one(json.dumps(event(**changed)).encode())
    assert (str(single.value), single.value.index) == (said, None)
    with pytest.raises(Refused) as batch:
        PARSER.many(json.dumps([event(1), event(**changed), event(2)]).encode())
    assert (str(batch.value), batch.value.index) == (said, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"5",
        b"[]",
        b"[1]",
        b"[[[[[",
        b"[" * 100_000,
        b'{"id": "\\ud800"}',
    ],
)
def test_malformed_bodies_are_refused(body: bytes) -> None:
    """Whatever comes, the answer is a sentence and no traceback."""
    with pytest.raises(Refused):
        PARSER.either(body)


_NAMES = st.sampled_from([*sorted(event()), "usage", "tokens", "model"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(_NAMES, inner),
)


@given(st.binary() | _VALUES.map(lambda made: json.dumps(made).encode()))
def test_any_body_is_taken_or_refused(body: bytes) -> None:
    """No body brings anything but events or Refused."""
    with suppress(Refused):
        assert PARSER.either(body)


def test_identity_is_source_and_id() -> None:
    """Neither alone, nor their mere concatenation; what is counted makes the content, not its
    spelling.
    """
    same = PARSER.one(json.dumps(event(source="ab", id="c")).encode())[0]
    other = PARSER.one(json.dumps(event(source="a", id="bc")).encode())[0]
    again = PARSER.one(
        json.dumps(event(source="ab", id="c", time="2026-11-22T00:59:59+01:00"), indent=3).encode()
    )[0]
    more = PARSER.one(json.dumps(event(source="ab", id="c", data={"prompt_tokens": 14})).encode())[
        0
    ]
    assert same.identity != other.identity
    assert (same.identity, same.content) == (again.identity, again.content)
    assert same.identity == more.identity
    assert same.content != more.content


def test_attributes_are_taken_from_the_data() -> None:
    """By a name, a path or a JSONPath; numbers and booleans become text; what is not there is
    absent.
    """
    parser = Parser(
        {"team": "$.team", "plan": "user.plan", "tier": "tier", "paid": "paid", "none": "a.b.c"}
    )
    found = parser.one(
        json.dumps(
            event(data={"team": "x", "user": {"plan": 3}, "tier": {}, "paid": True, "a": 1})
        ).encode()
    )
    assert found[0].dims == ("alice", None, "openai", None, "x", "3", None, "true", None)


@pytest.mark.parametrize(
    ("time", "unix"),
    [
        (None, None),
        ("0001-01-01T00:00:00Z", None),
        ("1970-01-01T00:00:01.9Z", 1),
        ("2026-11-22T01:00:00.5+01:00", 1795305600),
    ],
)
def test_the_time_is_the_event_s_own(time: str | None, unix: int | None) -> None:
    """In any zone, floored to a second; none, and Go's zero time, are left to the server."""
    assert PARSER.one(json.dumps(event(time=time)).encode())[0].time == unix


def test_an_estimate_says_so() -> None:
    """`estimated` is a dimension only where it is true."""
    said = [
        PARSER.one(json.dumps(event(data={"estimated": value})).encode())[0].dims[3]
        for value in (True, False, None)
    ]
    assert said == ["true", None, None]
