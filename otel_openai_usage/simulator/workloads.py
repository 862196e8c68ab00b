"""What the company does all day: streams of requests, each with its rhythm and its sizes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from otel_openai_usage.domain.endpoints import ENDPOINTS, USAGE_ENDPOINTS
from otel_openai_usage.domain.model import Dims
from otel_openai_usage.simulator.chance import code, draw, spread
from otel_openai_usage.simulator.company import Company, Key
from otel_openai_usage.simulator.prices import TOKENS


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How a day's requests fall: a weight per UTC hour, a factor (of 16) per weekday, and how
    bursty the minutes are.
    """

    hours: tuple[int, ...]
    weekdays: tuple[int, ...]
    minutes: bytes


_STEADY = bytes(96 + byte // 2 for byte in range(256))
_BURSTY = bytes(1 + byte * byte * byte // 66000 for byte in range(256))

OFFICE = Rhythm(
    (1, 0, 0, 0, 1, 4, 14, 38, 72, 92, 100, 88, 70, 86, 98, 92, 74, 44, 22, 14, 10, 6, 4, 2),
    (16, 17, 17, 16, 14, 2, 1),
    _BURSTY,
)
PUBLIC = Rhythm(
    (
        34,
        26,
        20,
        18,
        20,
        28,
        42,
        58,
        72,
        82,
        88,
        92,
        94,
        92,
        90,
        92,
        96,
        100,
        98,
        94,
        86,
        72,
        58,
        44,
    ),
    (15, 16, 16, 16, 16, 11, 10),
    _STEADY,
)
NIGHTLY = Rhythm((0, 60, 100, 90, 30, 4) + (0,) * 18, (16, 16, 16, 16, 16, 16, 8), _BURSTY)
PLAYING = Rhythm(
    (0, 0, 0, 0, 0, 0, 0, 20, 60, 80, 100, 60, 30, 90, 100, 80, 60, 30, 20, 30, 20, 10, 0, 0),
    (16, 16, 16, 16, 12, 1, 1),
    bytes(0 if byte < 176 else byte - 170 for byte in range(256)),
)
_QUIET = Rhythm((1,) * 24, (16,) * 7, _STEADY)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What one request uses on average; shares and `extra` in 1024ths."""

    size: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    image_output: int = 0
    cached_audio: int = 0
    cached_image: int = 0
    cache_write_12h: int = 0
    extra: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """One thing that the holder of a key does: so many requests on an ordinary weekday."""

    endpoint: str
    per_day: int
    rhythm: Rhythm
    sizes: Sizes
    dims: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Stream:
    """A `Work` of somebody: `dims` are aligned to the endpoint's dimensions, `seed` makes its chance
    its own.
    """

    index: int
    work: Work
    dims: Dims
    seed: int

    @property
    def model(self) -> str | None:
        """The model, where the endpoint has one."""
        return self.work.dims.get("model")


def _chat(
    model: str,
    per_day: int,
    rhythm: Rhythm,
    sizes: Sizes,
    batch: str = "false",
    tier: str = "default",
    source: str = "unlabeled",
    endpoint: str = "completions",
) -> Work:
    return Work(
        endpoint,
        per_day,
        rhythm,
        sizes,
        {"model": model, "batch": batch, "service_tier": tier, "api_source": source},
    )


def _other(
    endpoint: str, per_day: int, rhythm: Rhythm, sizes: Sizes = Sizes(), **dims: str
) -> Work:
    return Work(endpoint, per_day, rhythm, sizes, dims)


_COPILOT = Sizes(2600, 380, cached=560, cache_write=60)
_AGENT = Sizes(9200, 1500, cached=700, cache_write=90, cache_write_12h=30)
_EXTRACT = Sizes(5400, 620, cached=120)
_VOICE = Sizes(900, 700, audio_input=660, audio_output=800, cached=200, cached_audio=160)
_PICTURE = Sizes(420, 4160, image_input=300, image_output=1024, cached=120, cached_image=90)
_MEDIA = ("gpt-image-1", "gpt-4o-audio-preview-2025-06-03")
_LARGE = "text-embedding-3-large"
_SMALL = "text-embedding-3-small"
_MODERATION = "omni-moderation-2024-09-26"

_WORK: tuple[tuple[Work, ...], ...] = (
    (
        _chat("gpt-5-mini-2025-08-07", 9000, PUBLIC, _COPILOT),
        _chat("gpt-4o-2024-08-06", 1400, PUBLIC, _COPILOT, tier="priority"),
        _other("moderations", 10400, PUBLIC, Sizes(240), model=_MODERATION),
        _other("file_search_calls", 2100, PUBLIC, vector_store_id="help-centre"),
        _other(
            "web_search_calls",
            640,
            PUBLIC,
            Sizes(extra=420),
            model="gpt-5-mini-2025-08-07",
            context_level="low",
            api_source="unlabeled",
        ),
        _other("audio_transcriptions", 380, OFFICE, Sizes(74), model="whisper-1"),
        _other("code_interpreter_sessions", 90, OFFICE),
    ),
    (
        _chat("gpt-4o-2024-08-06", 5200, NIGHTLY, _EXTRACT, batch="true"),
        _chat("gpt-image-1", 260, OFFICE, _PICTURE),
        _chat("gpt-5-nano-2025-08-07", 700, NIGHTLY, _EXTRACT, endpoint="decisions"),
        _other("embeddings", 16000, NIGHTLY, Sizes(610), model=_LARGE),
        _other(
            "images",
            120,
            OFFICE,
            Sizes(extra=600),
            model="dall-e-3",
            size="1024x1024",
            source="image.generation",
        ),
        _other(
            "images",
            25,
            OFFICE,
            Sizes(extra=200),
            model="dall-e-2",
            size="512x512",
            source="image.edit",
        ),
        _other("audio_speeches", 210, OFFICE, Sizes(920), model="tts-1-hd"),
    ),
    (
        _chat("gpt-5-mini-2025-08-07", 420, OFFICE, _COPILOT),
        _chat("gpt-4.1-2025-04-14", 180, OFFICE, _COPILOT),
        _other("moderations", 600, OFFICE, Sizes(240), model=_MODERATION),
    ),
    (
        _chat("o3-2025-04-16", 640, OFFICE, Sizes(14200, 2900, cached=240), tier="flex"),
        _chat("gpt-5-2025-08-07", 900, OFFICE, Sizes(11800, 1700, cached=380, cache_write=40)),
        _other("file_search_calls", 760, OFFICE, vector_store_id="contracts"),
        _other("code_interpreter_sessions", 60, OFFICE),
    ),
    (
        _chat("gpt-4o-mini-2024-07-18", 2600, NIGHTLY, _EXTRACT, batch="true"),
        _chat("o4-mini-2025-04-16", 260, NIGHTLY, _AGENT, tier="flex"),
    ),
    (
        _other("embeddings", 42000, PUBLIC, Sizes(96), model=_LARGE),
        _other("embeddings", 5200, NIGHTLY, Sizes(540), model=_SMALL),
    ),
    (
        _chat("gpt-5-nano-2025-08-07", 21000, PUBLIC, Sizes(820, 36, cached=420)),
        _chat("gpt-4o-mini-2024-07-18", 3400, PUBLIC, Sizes(760, 90)),
    ),
    (
        _chat("gpt-5-mini-2025-08-07", 1900, OFFICE, _EXTRACT, batch="true"),
        _chat("gpt-5-mini-2025-08-07", 800, OFFICE, _EXTRACT),
        _chat(
            "gpt-5-mini-2025-08-07", 500, OFFICE, _EXTRACT, endpoint="decisions", tier="priority"
        ),
    ),
    (
        _chat("gpt-4o-audio-preview-2025-06-03", 340, OFFICE, _VOICE),
        _other("audio_transcriptions", 900, OFFICE, Sizes(210), model="whisper-1"),
        _other("audio_speeches", 460, OFFICE, Sizes(410), model="tts-1-hd"),
    ),
    (
        _chat("gpt-5-2025-08-07", 1500, PUBLIC, _AGENT, source="agents_api"),
        _other(
            "web_search_calls",
            900,
            PUBLIC,
            Sizes(extra=900),
            model="gpt-5-2025-08-07",
            context_level="high",
            api_source="agents_api",
        ),
        _other("code_interpreter_sessions", 150, PUBLIC),
    ),
    (
        _chat("gpt-4o-2024-08-06", 70, PLAYING, _COPILOT),
        _other(
            "images", 30, PLAYING, model="dall-e-3", size="1792x1024", source="image.generation"
        ),
    ),
    (_chat("gpt-4o-mini-2024-07-18", 480, NIGHTLY, _COPILOT),),
)
_PLAYGROUND = _chat("gpt-5-2025-08-07", 45, PLAYING, Sizes(1300, 800, cached=100))
_STORE = _other("vector_stores", 0, _QUIET)


def models(count: int | None) -> tuple[str, ...]:
    """The models that text chats use: those of the table, then fine-tunes, up to `count` (None: the
    table).
    """
    chats = [name for name in TOKENS if name.startswith(("gpt-", "o3", "o4"))]
    found = [name for name in chats if name not in _MEDIA]
    missing = (count or 0) - len(found)
    # Fine-tunes are how a real organization comes to hundreds of model names.
    for number in range(missing):
        suffix = code(8, "tune", number)
        found.append(f"ft:gpt-4o-mini-2024-07-18:larkspur::{suffix}")
    return tuple(found[:count])


def _works(key: Key, index: int, names: tuple[str, ...], keys: int, seed: int) -> Iterator[Work]:
    known = set(models(None))
    used = set()
    for work in _WORK[index % len(_WORK)]:
        model = work.dims.get("model")
        if model in known and model not in names:
            model = names[spread(len(names), seed, key.id, model)]
        used.add(model)
        if model is None:
            yield work
            continue
        yield replace(work, dims={**work.dims, "model": model})
    # The models that no work names are dealt out to the keys, so that every model is used.
    for name in names[index::keys]:
        if name not in used:
            yield _chat(name, 150, OFFICE, _COPILOT)


def _people_of(
    company: Company, seed: int, names: tuple[str, ...]
) -> Iterator[tuple[Work, dict[str, str | None]]]:
    for index, key in enumerate(company.keys):
        who = {"project_id": key.project.id, "user_id": key.owner.id, "api_key_id": key.id}
        for work in _works(key, index, names, len(company.keys), seed):
            dims: dict[str, str | None] = {**who, **work.dims}
            # The table has names of stores; OpenAI's ids differ from project to project.
            store = work.dims.get("vector_store_id")
            if store:
                dims["vector_store_id"] = "vs_" + code(24, seed, key.project.id, store)
            yield work, dims
    for index, person in enumerate(company.people):
        # People also use the playground, whose usage OpenAI reports without a key.
        if not person.service:
            project = company.projects[index % len(company.projects)]
            model = names[index % len(names)]
            work = replace(_PLAYGROUND, dims={**_PLAYGROUND.dims, "model": model})
            yield work, {"project_id": project.id, "user_id": person.id, **work.dims}
    for project in company.projects:
        yield _STORE, {"project_id": project.id}
    yield from _plain_works(company, names)


def _plain_works(
    company: Company, names: tuple[str, ...]
) -> Iterator[tuple[Work, dict[str, str | None]]]:
    """Some use, by every key, of the endpoints that no work above uses: a new row of the endpoint
    table is served without a line here.
    """
    used = {work.endpoint for works in _WORK for work in works} | {_STORE.endpoint}
    for endpoint in USAGE_ENDPOINTS.values():
        if endpoint.name in used:
            continue
        for index, key in enumerate(company.keys):
            who = {"project_id": key.project.id, "user_id": key.owner.id, "api_key_id": key.id}
            dims: dict[str, str | None] = {
                name: f"{name}-{index % 3}" for name in endpoint.group_by if name not in who
            }
            if "model" in dims:
                dims["model"] = names[index % len(names)]
            if "batch" in dims:
                dims["batch"] = "false"
            yield _other(endpoint.name, 240, PUBLIC), {**who, **dims}


def streams(
    company: Company, seed: int, model_count: int | None, activity: float
) -> tuple[Stream, ...]:
    """Every stream of the company; `activity` scales the requests."""
    found = []
    for index, (work, dims) in enumerate(_people_of(company, seed, models(model_count))):
        # From three quarters to five quarters of the table's number, so that seeds differ.
        factor = 768 + spread(512, seed, "busy", index)
        per_day = round(work.per_day * activity * factor / 1024)
        busy = replace(work, per_day=per_day)
        dimensions = ENDPOINTS[work.endpoint].dimensions
        aligned = tuple(dims.get(name) for name in dimensions)
        stream_seed = draw(seed, "stream", index)
        found.append(Stream(index, busy, aligned, stream_seed))
    return tuple(found)
