"""JSON to rows."""

import random
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.domain.endpoints import COSTS, ENDPOINTS, USAGE_ENDPOINTS, Endpoint
from otel_openai_usage.errors import BadResponse
from otel_openai_usage.providers.openai import money, wire
from otel_openai_usage.providers.openai.text import Odd
from tests.providers.openai.upstream import PAYLOADS, payload

COMPLETIONS = USAGE_ENDPOINTS["completions"]
EMBEDDINGS = USAGE_ENDPOINTS["embeddings"]
NONE7 = (None,) * 7

EXAMPLES = {
    "completions": (
        NONE7,
        (1000, 500, 400, 50, 50, 100, 5, 400, 400, 50, 50, 300, 50, 50, 0, 0, 500),
    ),
    "decisions": (
        NONE7,
        (1000, 500, 400, 50, 50, 100, 5, 400, 400, 50, 50, 300, 50, 50, 60, 40, 500),
    ),
    "embeddings": ((None,) * 4, (16, 2)),
    "moderations": ((None,) * 4, (16, 2)),
    "images": ((None,) * 6, (2, 2)),
    "audio_speeches": ((None,) * 4, (45, 1)),
    "audio_transcriptions": ((None,) * 4, (20, 1)),
    "vector_stores": ((None,), (1024,)),
    "code_interpreter_sessions": ((None,), (1,)),
    "file_search_calls": ((None,) * 4, (2,)),
    "web_search_calls": ((None,) * 6, (2, 2)),
    "costs": ((None,) * 5 + ("usd",), (Decimal("0.06"), Decimal(0))),
}


def encoded(*results: dict[str, Any]) -> bytes:
    """An array of results."""
    return msgspec.json.encode(list(results))


def completion(**fields: Any) -> dict[str, Any]:
    """A completions result with all that is required."""
    return {"input_tokens": 10, "output_tokens": 5, "num_model_requests": 1, **fields}


def cost(value: str) -> bytes:
    """An array of one cost, its value as that JSON text."""
    return b'[{"amount":{"value":%s,"currency":"usd"}}]' % value.encode()


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=str)
def test_examples_of_openai(endpoint: Endpoint) -> None:
    """Every kind reads OpenAI's own example of it, to the number."""
    page = wire.page((PAYLOADS / f"{endpoint.name}.json").read_bytes(), endpoint)
    dims, amounts = EXAMPLES[endpoint.name]
    assert [bucket.start for bucket in page.buckets] == [1730419200]
    assert wire.rows(endpoint, page.buckets[0].results) == {dims: amounts}


def test_envelope() -> None:
    """The cursor comes with the page, and an empty one is none."""
    page = wire.page((PAYLOADS / "completions.json").read_bytes(), COMPLETIONS)
    assert (page.has_more, page.next_page) == (True, "page_AAAAAGdGxdEiJdKOAAAAAGcqsYA=")
    assert wire.page(b'{"data":[],"has_more":false,"next_page":""}', COMPLETIONS) == wire.Page(
        [], False, None
    )
    assert wire.page(b'{"data":[],"has_more":false}', COMPLETIONS) == wire.Page([], False, None)


def test_result_is_results() -> None:
    """The array's name in OpenAI's document until 2026-05 is read as well."""
    page = wire.page(b'{"data":[{"start_time":60.0,"result":[ ]}],"has_more":false}', COMPLETIONS)
    assert [(bucket.start, wire.rows(COMPLETIONS, bucket.results)) for bucket in page.buckets] == [
        (60, {})
    ]


def test_fingerprint() -> None:
    """Equal content has an equal fingerprint, other content another."""
    first, same, other = (wire.bucket(60, encoded(completion(input_tokens=n))) for n in (1, 1, 2))
    assert first.fingerprint == same.fingerprint != other.fingerprint
    assert len(first.fingerprint) == 16


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"has_more":false}', "`data`"),
        (b'{"data":[]}', "`has_more`"),
        (b'{"data":{},"has_more":false}', r"\$.data"),
        (b'{"data":[{"results":[]}],"has_more":false}', "`start_time`"),
        (b'{"data":[{"start_time":60}],"has_more":false}', "nothing"),
        (b'{"data":[{"start_time":60,"results":null}],"has_more":false}', "null"),
        (b'{"data":[{"start_time":60.5,"results":[]}],"has_more":false}', "60.5"),
        (b'{"data":[{"start_time":"x","results":[]}],"has_more":false}', "start_time"),
        (b"[]", "array"),
        (b'{"data":[', "truncated"),
    ],
)
def test_unknown_envelopes(body: bytes, problem: str) -> None:
    """An envelope of another shape is an error that names the endpoint and the problem."""
    with pytest.raises(BadResponse, match=rf"^usage/completions: .*{problem}"):
        wire.page(body, COMPLETIONS)


@pytest.mark.parametrize(
    "fields",
    [
        {"input_tokens": 10.5},
        {"input_tokens": -1},
        {"input_tokens": True},
        {"input_tokens": "10"},
        {"input_tokens": None},
        {"input_cached_tokens": -1},
        {"input_cached_tokens": "4"},
        {"input_tokens": []},
        {"input_cached_tokens": {}},
    ],
    ids=str,
)
def test_unknown_results(fields: dict[str, Any]) -> None:
    """A number that is none is an error that names endpoint and field."""
    with pytest.raises(BadResponse, match=rf"^usage/completions: .*{next(iter(fields))}"):
        wire.rows(COMPLETIONS, encoded(completion(**fields)))


@pytest.mark.parametrize(
    ("field", "sent", "kept", "replaced"),
    [
        ("model", "5", "5", 1),
        ("model", "false", "false", 1),
        ("model", '"gpt \\ud83d"', "gpt \ufffd", 1),
        ("model", '"gpt \\\\ud83d"', "gpt \\ud83d", 0),
        ("model", '"\\ud83d\\ude00"', "\U0001f600", 0),
        ("model", "[]", None, 0),
        ("model", "{}", None, 0),
        ("project_id", '["a"]', "\ufffd", 1),
        ("project_id", '{"id":"a"}', "\ufffd", 1),
        ("batch", '"perhaps"', None, 1),
        ("batch", "1", "true", 1),
        ("batch", "[2]", None, 1),
    ],
)
def test_odd_text_costs_no_numbers(field: str, sent: str, kept: str | None, replaced: int) -> None:
    """A dimension that cannot be read is replaced and counted; its row keeps its tokens, and so do
    the others.
    """
    other = encoded(completion(user_id="u"))[1:-1].decode()
    counts = '"input_tokens":10,"output_tokens":5,"num_model_requests":1'
    body = f'[{{{counts},"{field}":{sent}}},{other}]'.encode()
    odd = Odd()
    rows = wire.rows(COMPLETIONS, body, odd)
    found = {
        dict(zip(COMPLETIONS.dimensions, dims, strict=True))[field]: amounts
        for dims, amounts in rows.items()
        if "u" not in dims
    }
    assert found == {kept: (10, 5, 0, 0, 0, 0, 1, *(0,) * 10)}
    assert len(rows) == 2
    assert (odd.replaced, odd.left_out) == (replaced, 0)


def test_text_that_is_no_unicode_is_replaced() -> None:
    """Bytes that are no UTF-8 cost their row nothing, in usage and in costs."""
    row = b'[{"input_tokens":1,"num_model_requests":1,"model":"gpt-\xff"}]'
    assert list(wire.rows(EMBEDDINGS, row)) == [(None, None, None, "gpt-\ufffd")]
    line = b'[{"amount":{"value":0.5,"currency":"usd"},"line_item":"caf\xe9","project_id":7}]'
    odd = Odd()
    ((dims, amounts),) = wire.rows(COSTS, line, odd).items()
    assert dims == ("7", "caf\ufffd", None, None, None, "usd")
    assert amounts == (Decimal("0.5"), Decimal(0))
    assert odd.replaced == 2


@pytest.mark.parametrize("endpoint", [COMPLETIONS, COSTS], ids=str)
@pytest.mark.parametrize("empty", [b"null", b"[]", b"{}", b"{ }"])
def test_a_result_of_nothing_is_left_out(endpoint: Endpoint, empty: bytes) -> None:
    """What says nothing, as PHP and JavaScript spell it, is left out; the row beside it counts."""
    row = encoded(completion() if endpoint is COMPLETIONS else {"amount": {"value": 1}})[1:-1]
    odd = Odd()
    with_it = wire.rows(endpoint, b"[" + empty + b"," + row + b"]", odd)
    if endpoint is COMPLETIONS or not empty.startswith(b"{"):
        assert with_it == wire.rows(endpoint, b"[" + row + b"]")
        assert odd.left_out == 1


@pytest.mark.parametrize("item", [b"5", b'"x"', b"[1]", b'[{"input_tokens":1}]', b'{"id":null}'])
def test_what_is_no_result_is_an_error(item: bytes) -> None:
    """Something else in the place of a result refuses the bucket: nobody knows what it counts."""
    with pytest.raises(BadResponse):
        wire.rows(EMBEDDINGS, b"[" + item + b"]")


def test_endless_text_is_cut() -> None:
    """A model of a megabyte would be a label of a megabyte."""
    rows = wire.rows(
        EMBEDDINGS, encoded({"input_tokens": 1, "num_model_requests": 1, "model": "x" * 10**6})
    )
    ((*_, model),) = rows
    assert model == "x" * 1024


def test_endless_text_in_costs_is_cut() -> None:
    """Every dimension of a cost has at most 1,024 characters, and its amount counts."""
    endless = "x" * 100_000
    names = (*COSTS.group_by, "currency")
    result = dict.fromkeys(COSTS.group_by, endless)
    body = encoded({**result, "amount": {"value": 2, "currency": endless}})
    ((dims, (amount, _)),) = wire.rows(COSTS, body).items()
    assert dims == ("x" * 1024,) * len(names)
    assert amount == 2


def test_a_cost_without_a_value_is_counted_as_odd() -> None:
    """A cost whose value is null is 0, and that is counted."""
    odd = Odd()
    ((amount, _),) = wire.rows(COSTS, cost("null"), odd).values()
    assert amount == 0
    assert odd.replaced == 1


def test_a_missing_count_is_an_error() -> None:
    """Required counts must be there."""
    with pytest.raises(BadResponse, match=r"^usage/embeddings: num_model_requests: .* got nothing"):
        wire.rows(EMBEDDINGS, encoded({"input_tokens": 1}))


@pytest.mark.parametrize(
    ("text", "value"),
    [("10.0", 10), ("1e3", 1000), ("9007199254740993.0", 9007199254740993), (str(10**16), 10**16)],
)
def test_whole_numbers_in_other_dress(text: str, value: int) -> None:
    """10.0 is 10, and no count is too large or loses a digit."""
    body = b'[{"input_tokens":%s,"num_model_requests":1}]' % text.encode()
    assert wire.rows(EMBEDDINGS, body) == {(None,) * 4: (value, 1)}


@pytest.mark.parametrize("extra", [{}, {"input_cached_tokens": None}])
def test_optional_counts(extra: dict[str, Any]) -> None:
    """An optional count that is missing or null is 0."""
    assert wire.rows(COMPLETIONS, encoded(completion(**extra))) == {
        NONE7: (10, 5, 0, 0, 0, 0, 1, *(0,) * 10)
    }


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (True, "true"),
        (False, "false"),
        (None, None),
        ("true", "true"),
        ("FALSE", "false"),
        ("", None),
    ],
    ids=str,
)
def test_batch(sent: object, kept: str | None) -> None:
    """`batch` may come as boolean, string or null."""
    (dims,) = wire.rows(COMPLETIONS, encoded(completion(batch=sent, model="gpt-5")))
    assert dims == (None, None, None, "gpt-5", kept, None, None)


def test_an_empty_dimension_is_none() -> None:
    """A model called "" is no model, and its row joins the one without."""
    rows = wire.rows(
        EMBEDDINGS,
        encoded(
            {"input_tokens": 1, "num_model_requests": 1, "model": ""},
            {"input_tokens": 2, "num_model_requests": 1},
        ),
    )
    assert rows == {(None,) * 4: (3, 2)}


def test_equal_dimensions_are_one_object() -> None:
    """The same series in two buckets shares its dimensions."""
    body = encoded(completion(project_id="proj_1", model="gpt-5"))
    (first,), (second,) = (
        wire.rows(COMPLETIONS, body),
        wire.rows(COMPLETIONS, bytes(bytearray(body))),
    )
    assert first is second


counts = st.integers(0, 10**15)
results = st.lists(
    st.fixed_dictionaries(
        {"input_tokens": counts, "num_model_requests": counts},
        optional={
            "model": st.sampled_from(["a", "b", "", None]),
            "project_id": st.sampled_from(["p", None]),
            "new": st.integers() | st.text(),
        },
    ),
    max_size=8,
)


@given(results, st.randoms(use_true_random=False))
def test_rows_are_sums(items: list[dict[str, Any]], rng: random.Random) -> None:
    """Duplicate keys sum, order does not matter, unknown fields are ignored, nothing is lost."""
    rows = wire.rows(EMBEDDINGS, encoded(*items))
    assert sum(amounts[0] for amounts in rows.values()) == sum(
        item["input_tokens"] for item in items
    )
    rng.shuffle(items)
    for item in items:
        item.pop("new", None)
    assert wire.rows(EMBEDDINGS, encoded(*items)) == rows


@given(results, results)
def test_joined(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    """Two arrays joined are one array of both."""
    assert (
        msgspec.json.decode(wire.joined(encoded(*one), b" " + encoded(*other) + b"\n"))
        == one + other
    )


@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=None).filter(
        lambda d: abs(d) <= money.MAX_COUNT and int(d.as_tuple().exponent) >= -money.PLACES
    ),
    st.booleans(),
)
def test_any_amount_survives(value: Decimal, quoted: bool) -> None:
    """Whatever decimal text OpenAI sends, as number or string, is kept to the digit."""
    text = f'"{value}"' if quoted else str(value)
    ((dims, (amount, _)),) = wire.rows(COSTS, cost(text)).items()
    assert (dims[-1], amount) == ("usd", value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0E-6176", "0"),
        ('"0E-6176"', "0"),
        ('"0.003627500000000000000000000000000000"', "0.003627500000000000000000000000000000"),
        ("0.1234567890123456789012345678901234", "0.1234567890123456789012345678901234"),
        ("-1.5", "-1.5"),
        ("null", "0"),
    ],
)
def test_amounts_seen_on_the_wire(text: str, value: str) -> None:
    """Spellings that were reported, exact, and a zero without its thousands of places."""
    ((amount, _),) = wire.rows(COSTS, cost(text)).values()
    assert str(amount) == value


@pytest.mark.parametrize(
    "text",
    [
        '"NaN"',
        '"Infinity"',
        '"-Infinity"',
        '"sNaN"',
        '"1E+999999"',
        "1e17",
        "-1e17",
        "1E-6000",
        '"twelve"',
        '""',
        "true",
        "[]",
    ],
)
def test_what_is_no_amount(text: str) -> None:
    """What is no finite amount is refused."""
    with pytest.raises(BadResponse, match=r"^costs: "):
        wire.rows(COSTS, cost(text))


def test_sums_of_money_are_exact() -> None:
    """Duplicate cost rows sum without rounding to 28 digits, also beside a tiny one."""
    body = encoded(
        *(
            {"amount": {"value": value, "currency": "USD"}}
            for value in ("1" * 15 + "." + "1" * 19, "0." + "0" * 33 + "1", "1E-99", "0E-6176")
        )
    )
    ((amount, _),) = wire.rows(COSTS, body).values()
    assert isinstance(amount, Decimal)
    assert amount == Decimal("1" * 15 + "." + "1" * 19 + "0" * 14 + "1" + "0" * 64 + "1")


def test_sums_of_money_beyond_reason_are_refused() -> None:
    """Rows of one attribute set may add up to what one row may say, and no more."""
    body = encoded(*({"amount": {"value": 10**16 // 2}} for _ in range(3)))
    with pytest.raises(BadResponse, match="add up to more than"):
        wire.rows(COSTS, body)


def test_costs_apart() -> None:
    """Currencies stay apart and in lower case, usd where none is said; quantity and dimensions come
    along.
    """
    body = encoded(
        {
            "amount": {"value": 1, "currency": "EUR"},
            "project_id": "p",
            "line_item": "gpt-5, input",
            "quantity": 2.5,
        },
        {"amount": {"value": 2}, "project_id": "p", "line_item": "gpt-5, input", "quantity": None},
        {"amount": None, "project_id": ""},
        {"project_id": None},
    )
    assert wire.rows(COSTS, body) == {
        ("p", "gpt-5, input", None, None, None, "eur"): (Decimal(1), Decimal("2.5")),
        ("p", "gpt-5, input", None, None, None, "usd"): (Decimal(2), Decimal(0)),
        (None, None, None, None, None, "usd"): (Decimal(0), Decimal(0)),
    }


def test_organization_id() -> None:
    """The id that costs results may carry, and not one that a text speaks of."""
    assert wire.organization_id(encoded({"line_item": "x", "organization_id": "org-1"})) == "org-1"
    assert (
        wire.organization_id(
            encoded({"line_item": '"organization_id": "org-2"', "organization_id": None})
        )
        is None
    )


def test_unknown_fields_anywhere() -> None:
    """Additions to envelope, bucket and result are ignored."""
    body = payload("completions")
    plain = wire.page(msgspec.json.encode(body), COMPLETIONS)
    body["new"] = body["data"][0]["start_time_iso"] = body["data"][0]["results"][0]["more"] = {
        "a": [1]
    }
    odd = wire.page(msgspec.json.encode(body), COMPLETIONS)
    assert wire.rows(COMPLETIONS, odd.buckets[0].results) == wire.rows(
        COMPLETIONS, plain.buckets[0].results
    )
