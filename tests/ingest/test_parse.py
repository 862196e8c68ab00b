"""CloudEvents bodies become events, or a sentence."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.ingest.parser import Parser, Refused
from tests.ingest.conftest import event

PARSER = Parser(now=lambda: 1_795_305_600.0)  # 2026-11-22


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
        ({"data": {"input_tokens": -1}}, "data.input_tokens: expected a whole number from 0 to 1000000000000, got -1"),
        ({"data": {"input_tokens": 1.5}}, "data.input_tokens: expected a whole number from 0 to 1000000000000, got 1.5"),
        ({"data": {"input_tokens": "nan"}}, "data.input_tokens: expected a whole number from 0 to 1000000000000, got 'nan'"),
        ({"data": {"input_tokens": "many"}}, "data.input_tokens: expected a whole number from 0 to 1000000000000, got 'many'"),
        ({"data": {"input_tokens": "1_000"}}, "data.input_tokens: expected a whole number from 0 to 1000000000000, got '1_000'"),
        ({"data": {"input_tokens": "٣"}}, "data.input_tokens: expected a whole number from 0 to 1000000000000, got '٣'"),
        ({"data": {"input_tokens": 10**13}}, "data.input_tokens: expected a whole number from 0 to 1000000000000, got 10000000000000"),
        ({"data": {"tokens": "many", "type": "input"}}, "data.tokens: expected a whole number from 0 to 1000000000000, got 'many'"),
        ({"data": {"input_tokens": [3]}}, "data.input_tokens: expected a whole number from 0 to 1000000000000, got [3]"),
        ({"data": {"usage": {"output_tokens": True}}}, "data.output_tokens: expected a whole number from 0 to 1000000000000, got True"),
        ({"data": {"inputTokens": -1}}, "data.inputTokens: expected a whole number from 0 to 1000000000000, got -1"),
        ({"time": "0001-01-01T00:00:01Z"}, "time: expected one from 2015 to 2027-12-27T00:00:00Z, got 0001-01-01T00:00:01+00:00"),
        ({"time": "2014-12-31T23:59:59Z"}, "time: expected one from 2015 to 2027-12-27T00:00:00Z, got 2014-12-31T23:59:59+00:00"),
        ({"time": "2027-12-27T00:00:01Z"}, "time: expected one from 2015 to 2027-12-27T00:00:00Z, got 2027-12-27T00:00:01+00:00"),
        ({"time": "9999-12-31T23:59:59-14:00"}, "time: expected one from 2015 to 2027-12-27T00:00:00Z, got 9999-12-31T23:59:59-14:00"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(changed: dict[str, object], said: str) -> None:
    """The attribute, what was expected and what came; in a batch also which event."""
    with pytest.raises(Refused) as single:
        PARSER.one(json.dumps(event(**changed)).encode())
    assert (str(single.value), single.value.index) == (said, None)
    with pytest.raises(Refused) as batch:
        PARSER.many(json.dumps([event(1), event(**changed), event(2)]).encode())
    assert (str(batch.value), batch.value.index) == (said, 1)


@pytest.mark.parametrize(
    "data",
    [
        {"total_tokens": 5},
        {"tokens": 5}, {"tokens": 5, "type": "x"}, {"tokens": 5, "type": ["input"]}, {"tokens": {"input": 5}, "type": "input"},
        {"input_tokens": {}}, {"prompt_tokens": [], "completion_tokens": None},
        {"usage": "none"}, {"usage": []}, {"usage": 5}, {"usage": {"total": 5}}, {"response": "text"}, {"response": {"body": [1]}},
        [], [1], "text", 5, True, "{}",
        {"model": 5, "organization": ["o"], "estimated": "yes"}, {"message": "a text", "x_groq": None},
    ],
)  # fmt: skip
def test_usage_that_we_do_not_know_is_a_request_without_tokens(data: object) -> None:
    """It is counted as a request, and the rest of its batch is taken."""
    assert amounts(data) == (0, 0, 0, 0, 1)
    batch = PARSER.many(json.dumps([event(1), event(2, data=data)]).encode())
    assert [each.amounts for each in batch] == [(13, 7, 0, 0, 1), (0, 0, 0, 0, 1)]
    assert batch[1].dims[1:] == (None, "openai", None)


ODD_DETAILS: list[object] = [[], "none", 5, True, {"cached_tokens": [], "reasoning_tokens": {}},
    {"cached_tokens": "few", "reasoning_tokens": -1}, {"cached_tokens": 1.5}]  # fmt: skip


@pytest.mark.parametrize("details", ODD_DETAILS)
def test_odd_details_are_ignored(details: object) -> None:
    """PHP encodes an empty object as a list; input and output count all the same."""
    for spelling in ("prompt_tokens", "input_tokens", "input_token", "completion_tokens"):
        data = {"prompt_tokens": 9, "completion_tokens": 8, f"{spelling}_details": details}
        assert amounts(data) == (9, 8, 0, 0, 1)


@pytest.mark.parametrize(
    ("data", "counted"),
    [
        # LiteLLM and others send both dialects, one of them with zeros
        ({"prompt_tokens": 0, "completion_tokens": 0, "input_tokens": 9, "output_tokens": 8}, (9, 8, 0, 0, 1)),
        ({"prompt_tokens": 9, "completion_tokens": 8, "input_tokens": 0, "output_tokens": 0}, (9, 8, 0, 0, 1)),
        ({"prompt_tokens": 9, "completion_tokens": 8, "input_tokens": 9, "output_tokens": 8}, (9, 8, 0, 0, 1)),
        ({"prompt_tokens": 9, "completion_tokens": 8, "cached_tokens": 0, "prompt_tokens_details": {"cached_tokens": 4}}, (9, 8, 4, 0, 1)),
        ({"prompt_tokens": 9, "completion_tokens": 8, "input_tokens_details": {"cached_tokens": 0},
          "prompt_tokens_details": {"cached_tokens": 4}}, (9, 8, 4, 0, 1)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "usage": {"input_tokens": 9, "output_tokens": 8}}, (9, 8, 0, 0, 1)),
        ({"usage": {"prompt_tokens": 0, "completion_tokens": 0}, "x_groq": {"usage": {"prompt_tokens": 9, "completion_tokens": 8}}},
         (9, 8, 0, 0, 1)),
        # DeepSeek, Perplexity, LiteLLM, Anthropic
        ({"prompt_tokens": 9, "completion_tokens": 8, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 5}, (9, 8, 4, 0, 1)),
        ({"usage": {"prompt_tokens": 9, "completion_tokens": 8, "reasoning_tokens": 6, "completion_tokens_details": None}},
         (9, 8, 0, 6, 1)),
        ({"usage": {"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17, "cache_read_input_tokens": 4}}, (9, 8, 4, 0, 1)),
        ({"usage": {"input_tokens": 5, "output_tokens": 8, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 1}},
         (10, 8, 4, 0, 1)),
        # attributes of other people's, which are named like usage
        ({"prompt_tokens": 9, "completion_tokens": 8, "tokens": 5, "type": "input"}, (9, 8, 0, 0, 1)),
        ({"prompt_tokens": 9, "completion_tokens": 8, "usage": {"input_tokens": 90, "output_tokens": 80}}, (9, 8, 0, 0, 1)),
        ({"prompt_tokens": 9, "completion_tokens": 8, "usage": "heavy", "response": "short", "message": "hello"}, (9, 8, 0, 0, 1)),
    ],
)  # fmt: skip
def test_a_number_wins_over_zero(data: object, counted: tuple[int, ...]) -> None:
    """Whichever dialect, field or inner object says it; what only has the name of usage changes
    nothing.
    """
    assert amounts(data) == counted


def test_a_line_of_a_batch_s_output_file_is_understood() -> None:
    """The usage and the model are those of the response in it, as in a realtime `response.done`."""
    body = {"model": "gpt-5", "usage": {"prompt_tokens": 9, "completion_tokens": 8}}
    response = {"status_code": 200, "request_id": "req_1", "body": body}
    line = {"id": "batch_req_1", "custom_id": "mine", "response": response, "error": None}
    for data in (line, {"type": "response.done", "response": body}):
        found = PARSER.one(json.dumps(event(data=data)).encode())[0]
        assert (found.amounts, found.dims[1]) == ((9, 8, 0, 0, 1), "gpt-5")


def test_a_batch_counts_when_it_has_ended() -> None:
    """While it runs it says zeros: counted then, its real usage would be a conflict for ever."""
    zeros = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    real = {"input_tokens": 900, "output_tokens": 80, "total_tokens": 980}
    batch = {"object": "batch", "id": "batch_1", "model": "gpt-5"}
    for status in ("validating", "in_progress", "finalizing", "cancelling"):
        running = event(data={**batch, "status": status, "usage": zeros})
        assert PARSER.one(json.dumps(running).encode()) == []
        assert len(PARSER.many(json.dumps([running, event()]).encode())) == 1
    for status in ("completed", "cancelled", "expired", "failed"):
        assert amounts({**batch, "status": status, "usage": real}) == (900, 80, 0, 0, 1)


LONE = [b"\\ud83d", b"\\uDE00", b"\\ud83d\\ud83d", b"\\\\\\ud83d", b"\xf0\x9f", b"\xed\xa0\xbd"]


@pytest.mark.parametrize("half", LONE)
@pytest.mark.parametrize("place", [b"note", b"subject", b"model"])
def test_half_an_emoji_is_replaced(half: bytes, place: bytes) -> None:
    """Wherever it stands, alone or in a batch, the event counts; whole emoji and escaped
    backslashes stay.
    """
    text = dict.fromkeys((b"note", b"subject", b"model"), b"ok")
    text[place] = rb"caf\u00e9 \ud83d\ude00 \\ud83d " + half
    body = (
        b'{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"%(subject)s",'
        b'"data":{"model":"%(model)s","note":"%(note)s","prompt_tokens":3,"completion_tokens":4}}'
    ) % text
    (one,) = Parser({"note": "note"}).one(body)
    (many,) = Parser({"note": "note"}).many(b"[%s]" % body)
    assert one == many
    assert one.amounts == (3, 4, 0, 0, 1)
    shown = one.dims[{b"subject": 0, b"model": 1, b"note": 4}[place]]
    assert shown
    assert shown.startswith("caf\u00e9 \U0001f600 \\ud83d ")
    assert shown.encode().endswith("\ufffd".encode())


def test_repair_makes_no_body_of_what_is_none() -> None:
    """A body that is no JSON for another reason is refused, in a batch with its sentence."""
    for body in (b'{"subject": "\\ud83d"', b'[{"id": "\\ud83d"}]', b"\xef\xbb\xbf", b"[\xff]"):
        with pytest.raises(Refused):
            PARSER.either(body)


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
        ("2015-01-01T00:00:01.9Z", 1_420_070_401),
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


GEMINI = {"promptTokenCount": 9, "candidatesTokenCount": 6, "thoughtsTokenCount": 2, "cachedContentTokenCount": 4,
    "totalTokenCount": 17}  # fmt: skip


@pytest.mark.parametrize(
    ("data", "counted"),
    [
        (GEMINI, (9, 8, 4, 2, 1)), ({"usageMetadata": GEMINI}, (9, 8, 4, 2, 1)), ({"usage": GEMINI}, (9, 8, 4, 2, 1)),
        ({"usage_metadata": {"prompt_token_count": 9, "candidates_token_count": 8}}, (9, 8, 0, 0, 1)),
        ({"usage": {"inputTokens": 9, "outputTokens": 8, "reasoningTokens": 2, "cachedInputTokens": 4}}, (9, 8, 4, 2, 1)),
        ({"inputTokens": 5, "outputTokens": 8, "cacheReadInputTokens": 4, "cacheWriteInputTokens": 1}, (10, 8, 4, 0, 1)),
        ({"response": {"body": {"usage": {"promptTokens": 9, "completionTokens": 8}}}}, (9, 8, 0, 0, 1)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "usage": {"inputTokens": 9, "outputTokens": 8}}, (9, 8, 0, 0, 1)),
        ({"prompt_tokens": 9, "completion_tokens": 8, "inputTokens": 90, "usageMetadata": GEMINI}, (9, 8, 0, 0, 1)),
        ({"inputTokens": None, "usageMetadata": []}, (0, 0, 0, 0, 1)),
    ],
)  # fmt: skip
def test_the_spelling_of_other_vendors_is_understood(
    data: object, counted: tuple[int, ...]
) -> None:
    """Gemini, Bedrock and Vercel's AI SDK, where OpenAI's own fields say nothing."""
    assert amounts(data) == counted


def test_gemini_s_model_is_its_version() -> None:
    """It names the model in `modelVersion`."""
    data = {"modelVersion": "gemini-2.5-pro", "usageMetadata": GEMINI}
    assert PARSER.one(json.dumps(event(data=data)).encode())[0].dims[1] == "gemini-2.5-pro"


def test_a_long_attribute_is_cut_with_a_mark() -> None:
    """512 characters stay as they are; the last of more is replaced, also of the model's name."""
    parser = Parser({"team": "team"})
    for length, shown in ((512, "x" * 512), (513, "x" * 511 + "…"), (5000, "x" * 511 + "…")):
        data = {"team": "x" * length, "model": "x" * length}
        dims = parser.one(json.dumps(event(data=data)).encode())[0].dims
        assert (dims[1], dims[4]) == (shown, shown)
