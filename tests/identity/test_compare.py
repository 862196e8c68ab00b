"""Whether two identities are one organization."""

import pytest

from otel_openai_usage.domain.identity import Identity, Verdict, compare, from_header, mark

A = Identity(frozenset({"org-a"}))
B = Identity(frozenset({"org-b"}))


def members(*ids: str) -> Identity:
    """Projects and keys only."""
    return Identity(members=frozenset(ids))


@pytest.mark.parametrize(
    ("known", "seen", "verdict"),
    [
        (A, A, Verdict.SAME),
        (A, B, Verdict.OTHER),
        (A | members("p1"), B | members("p1"), Verdict.OTHER),
        (A | members("p1"), A | members("p2"), Verdict.SAME),
        (A | members("p1"), members("p1", "p2"), Verdict.SAME),
        (A | members("p1"), members("p2"), Verdict.OTHER),
        (members("p1"), members("p2"), Verdict.OTHER),
        (members("p1", "k1"), members("k1"), Verdict.SAME),
        (members("p1"), Identity(), Verdict.UNKNOWN),
        (Identity(), members("p1"), Verdict.UNKNOWN),
        (A, members("p1"), Verdict.UNKNOWN),
        (Identity(alias="larkspur"), Identity(alias="larkspur"), Verdict.SAME),
        (Identity(alias="larkspur"), Identity(alias="other"), Verdict.OTHER),
        (
            Identity(alias="old") | members("p1"),
            Identity(alias="new") | members("p1"),
            Verdict.SAME,
        ),
        (Identity(), Identity(), Verdict.UNKNOWN),
    ],
)
def test_ids_decide_and_else_what_is_in_common(
    known: Identity, seen: Identity, verdict: Verdict
) -> None:
    """The organization's id decides where both say one; else a common project or key does."""
    assert compare(known, seen) is verdict
    assert compare(seen, known) is verdict


def test_the_header_is_an_id_or_a_name() -> None:
    """Only what looks like an id is one; an empty header says nothing."""
    assert from_header("org-a") == A
    assert from_header(" larkspur-labs ") == Identity(alias="larkspur-labs")
    assert from_header("") == from_header(None) == Identity()


def test_a_mark_differs_by_key_url_and_state() -> None:
    """A mark is the same for the same key, URL and state only, and does not hold the key."""
    one = mark("state", "https://api/v1/", "sk-admin-1")
    assert one == mark("state", "https://api/v1", "sk-admin-1")
    others = [
        mark("state", "https://api/v1", "sk-admin-2"),
        mark("state", "https://other/v1", "sk-admin-1"),
        mark("another", "https://api/v1", "sk-admin-1"),
    ]
    assert len({one, *others}) == 4
    assert "sk-admin" not in one
