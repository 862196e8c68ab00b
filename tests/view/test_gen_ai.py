"""Tokens under the names of the GenAI conventions: the same promises as under ours."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.domain import gen_ai
from otel_openai_usage.domain.endpoints import USAGE_ENDPOINTS
from otel_openai_usage.domain.snapshot import Point
from otel_openai_usage.view.attributes import OVERFLOW, AttributePolicy
from tests.domain.shelf import source_state
from tests.view.test_series_index import Stage

COMPLETIONS = USAGE_ENDPOINTS["completions"]
TOKENS = "openai.api.tokens"
NAMES = [measure.name for measure in COMPLETIONS.measures]
DIMENSIONS = COMPLETIONS.dimensions


def dims(**values: str) -> tuple[str | None, ...]:
    """Return dimensions of completions."""
    return tuple(values.get(name) for name in DIMENSIONS)


def amounts(**values: int) -> tuple[int, ...]:
    """Return amounts of completions."""
    return tuple(values.get(name, 0) for name in NAMES)


def stage(policy: AttributePolicy | None = None) -> Stage:
    """A stage with one source, on which no page was served yet."""
    made = Stage(policy or AttributePolicy(profile="both", zero_hold=60, name_wait=0))
    made.source_states = [source_state(COMPLETIONS)]
    made.series_index.page_served = False
    return made


def by_modality(points: list[Point], more: str = "") -> dict[object, float]:
    """Return values by modality, and by another attribute."""
    return {
        (point.series.attributes[gen_ai.MODALITY], point.series.attributes[more])
        if more
        else point.series.attributes[gen_ai.MODALITY]: point.value
        for point in points
    }


USED = amounts(input=100, input_text=60, input_cached=30, input_cached_text=30, output=9)


def test_names_are_those_of_the_convention() -> None:
    """The attributes that the convention has are under its names, and all others under ours."""
    made = stage()
    (one,) = made.source_states
    made.use(
        one,
        dims(project_id="p", model="gpt-5", service_tier="flex", batch="false"),
        USED,
        released=True,
    )
    made.publish()
    points = made.points[gen_ai.INPUT]
    assert by_modality(points) == {"text": 90, "unknown": 10}
    assert dict(points[0].series.attributes) == {
        "organization": "default",
        "gen_ai.provider.name": "openai",
        "gen_ai.operation.name": "chat",
        "gen_ai.response.model": "gpt-5",
        "gen_ai.token.modality": "text",
        "openai.response.service_tier": "flex",
        "project_id": "p",
        "project_name": "unknown",
        "batch": "false",
    }
    assert by_modality(made.points[gen_ai.CACHE_READ]) == {"text": 30}
    assert TOKENS in made.points


def test_gen_ai_alone_replaces_our_tokens() -> None:
    """With the profile gen_ai there is no openai.api.tokens; requests stay."""
    made = stage(AttributePolicy(profile="gen_ai", name_wait=0))
    (one,) = made.source_states
    made.use(one, dims(model="gpt-5"), USED, released=True)
    made.publish()
    assert TOKENS not in made.points
    assert {gen_ai.INPUT, gen_ai.OUTPUT, "openai.api.requests"} <= made.points.keys()


def test_drop_and_rename_apply_by_our_names() -> None:
    """A dropped attribute is summed, and a configured name is stronger than the convention's."""
    policy = AttributePolicy(
        profile="both",
        drop=frozenset({"project_id", "project_name"}),
        rename={"model": "m"},
        name_wait=0,
    )
    made = stage(policy)
    (one,) = made.source_states
    made.use(one, dims(project_id="p", model="gpt-5"), USED, released=True)
    made.use(one, dims(project_id="q", model="gpt-5"), USED, released=True)
    made.publish()
    points = made.points[gen_ai.INPUT]
    assert by_modality(points, "m") == {("text", "gpt-5"): 180, ("unknown", "gpt-5"): 20}


def test_a_new_series_is_zero_first() -> None:
    """After a page was served a modality that appears is 0 first, then has its value."""
    made = stage()
    made.series_index.page_served = True
    (one,) = made.source_states
    made.use(one, dims(model="gpt-5"), USED)
    made.publish()
    assert set(by_modality(made.points[gen_ai.INPUT]).values()) == {0}
    made.publish(later=61)
    made.publish()
    assert by_modality(made.points[gen_ai.INPUT]) == {"text": 90, "unknown": 10}


def test_what_remains_never_falls() -> None:
    """If OpenAI tells the modality later, `unknown` stays, also after a restart, and what is too
    much is restated_pending.
    """
    made = stage()
    (one,) = made.source_states
    made.use(one, dims(model="gpt-5"), amounts(input=100), released=True)
    made.publish()
    assert by_modality(made.points[gen_ai.INPUT]) == {"unknown": 100}
    made.use(one, dims(model="gpt-5"), amounts(input=100, input_text=100), released=True)
    made.publish()
    made.high_water_marks += made.series_index.take_marks()
    assert made.series_index.take_marks() == []
    made.publish(later=120)
    made.publish()
    shown = by_modality(made.points[gen_ai.INPUT])
    assert shown == {"unknown": 100, "text": 100}
    ((attributes, pending),) = made.series_index.restated_pending()[gen_ai.INPUT]
    assert (attributes[gen_ai.MODALITY], pending) == ("unknown", 100)
    made.start()
    assert by_modality(made.points[gen_ai.INPUT])["unknown"] == 100


def test_folded_series_keep_what_sums_need() -> None:
    """Beyond max_series the overflow series have operation, provider and modality."""
    made = stage(AttributePolicy(profile="both", max_series=4, name_wait=0))
    (one,) = made.source_states
    for project in "abc":
        made.use(one, dims(project_id=project, model="m"), USED, released=True)
    made.publish()
    overflow = [point for point in made.points[gen_ai.INPUT] if OVERFLOW in point.series.attributes]
    assert by_modality(overflow, "gen_ai.operation.name") == {
        ("text", "chat"): 180,
        ("unknown", "chat"): 20,
    }
    assert {point.series.attributes["gen_ai.provider.name"] for point in overflow} == {"openai"}


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50)),
        min_size=1,
        max_size=6,
    )
)
def test_sum_by_modality_is_our_input(steps: list[tuple[int, int, int]]) -> None:
    """While OpenAI's numbers only grow, the modalities add up to openai.api.tokens, and none falls."""
    made = stage()
    (one,) = made.source_states
    before: dict[object, float] = {}
    totals = Counter[str]()
    for text, audio, rest in steps:
        totals.update(input=text + audio + rest, input_text=text, input_audio=audio)
        made.use(one, dims(model="gpt-5"), amounts(**totals), released=True)
        made.publish(later=120)
        made.publish(later=120)
        found = by_modality(made.points.get(gen_ai.INPUT, []))
        assert sum(found.values()) == totals["input"]
        assert all(found[modality] >= value for modality, value in before.items())
        before = found
