"""Attributes of series: from dimensions and names to what is exported."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

from otel_openai_usage.domain import gen_ai
from otel_openai_usage.domain.endpoints import SHOWN_TOKEN_TYPES, Endpoint, Measure
from otel_openai_usage.domain.model import Names
from otel_openai_usage.domain.pricing import CURRENCY
from otel_openai_usage.domain.pseudonyms import NO_PSEUDONYMS, Pseudonyms
from otel_openai_usage.domain.series_marks import Attributes, Key
from otel_openai_usage.domain.source_state import SourceState, StoredSeries

V = TypeVar("V")

UNKNOWN = "unknown"
"""The name of a project or an API key whose name is not known."""
OVERFLOW = "otel.metric.overflow"
"""The attribute that OpenTelemetry defines for an overflow series."""

_ID_AND_NAME = (("project_id", "project_name"), ("api_key_id", "api_key_name"))
_USER_AND_NAME = ("user_id", "user_name")
_OVERFLOW_ATTRIBUTES = (
    "organization",
    "operation",
    "token_type",
    "currency",
    gen_ai.PROVIDER_NAME,
    gen_ai.MODALITY,
)
_NO_NAMES: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class AttributePolicy:
    """The configured rules for series and their attributes. Times are in seconds.

    * `rename` and `drop` apply to single attributes.
    * `token_types`: the token types of polled usage that have series.
    * `skip_zero`: export a series only after its value is above 0.
    * `zero_hold`: how long a new series is exported as 0 before its value.
    * `max_series`: series per instrument, before further ones join the overflow series.
    * `name_wait`: how long a new series waits for the names of its project and API key.
    * `forget`: a series becomes dormant when none of its members changed for so long.
    * `make_room`: the same, when its instrument has no capacity left for a new series.
    * `pseudonyms`: attributes that are exported as keyed hashes.
    * `user_names`: whether series with a user_id have a user_name.
    * `profile`: whether tokens are shown under our names, those of the GenAI conventions, or both.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    drop: frozenset[str] = frozenset()
    token_types: frozenset[str] = frozenset(SHOWN_TOKEN_TYPES)
    skip_zero: bool = False
    zero_hold: float = 60
    max_series: int = 100_000
    name_wait: float = 30
    forget: float = float("inf")
    make_room: float = float("inf")
    profile: gen_ai.Profile = "openai"
    pseudonyms: Pseudonyms = NO_PSEUDONYMS
    user_names: bool = False

    @property
    def names_without_ids(self) -> bool:
        """Whether a name is exported without its id.

        Then all ids with the same name share a series, and a rename moves usage between series.
        """
        shown = (*_ID_AND_NAME, _USER_AND_NAME) if self.user_names else _ID_AND_NAME
        return any(id_ in self.drop and name not in self.drop for id_, name in shown)

    def shows(self, measure: Measure) -> bool:
        """Return whether a measure has series."""
        if measure.instrument == "openai.api.tokens":
            return measure.token_type in self.token_types
        return bool(measure.instrument)

    def shows_under_our_names(self, measure: Measure) -> bool:
        """Return whether a measure has series that are not those of the GenAI conventions."""
        is_replaced = self.profile == "gen_ai" and measure.instrument == "openai.api.tokens"
        return self.shows(measure) and not is_replaced

    def attributes(self, raw: Attributes, names: Mapping[str, str] = _NO_NAMES) -> Attributes:
        """Return the attributes to export: hashed, renamed, without the dropped ones.

        `names` are a convention's names, where the policy does not rename.
        """
        if self.pseudonyms.hashed:
            raw = self._hashed(raw)
        return {
            self.rename.get(name) or names.get(name, name): value
            for name, value in raw.items()
            if name not in self.drop
        }

    def _hashed(self, raw: Attributes) -> Attributes:
        pseudonyms = self.pseudonyms
        return {
            name: pseudonyms.of(name, value) if isinstance(value, str) else value
            for name, value in raw.items()
            if not pseudonyms.hides(name)
        }

    def overflow(self, raw: Attributes, names: Mapping[str, str] = _NO_NAMES) -> Attributes:
        """Return the attributes of the overflow series for a series with these attributes."""
        common = {name: raw[name] for name in _OVERFLOW_ATTRIBUTES if name in raw}
        return {**self.attributes(common, names), OVERFLOW: True}


def attribute_key(attributes: Attributes) -> Key:
    """Return the same key for equal attributes: names and values in turn, sorted by name.

    The tuple is flat because a tuple of pairs takes more memory, and there is a key per series.
    """
    return tuple(chain.from_iterable(sorted(attributes.items())))


def aggregate(
    rows: Iterable[tuple[Attributes, V]], combine: Callable[[V, V], V]
) -> list[tuple[Attributes, V]]:
    """Combine the values of rows with equal attributes, in the order in which they first occur.

    Rows can have equal attributes because the policy dropped what told them apart.
    """
    combined: dict[Key, tuple[Attributes, V]] = {}
    for attributes, value in rows:
        key = attribute_key(attributes)
        earlier = combined.get(key)
        if earlier is not None:
            value = combine(earlier[1], value)  # noqa: PLW2901 - the sum so far
        combined[key] = (attributes, value)
    return list(combined.values())


def dimensions(source_state: SourceState, stored_series: StoredSeries) -> dict[str, str]:
    """Return the dimensions of a stored series by name, without nulls."""
    names = source_state.endpoint.dimensions
    pairs = zip(names, stored_series.dims, strict=True)
    return {name: value for name, value in pairs if value is not None}


def named(attributes: Attributes, names: Names, *, users: bool = False) -> Attributes:
    """Add project_name and api_key_name for the ids in `attributes`, and return `attributes`.

    With `users` user_name, too. The name of an id without one is `unknown`.
    """
    known_names = (names.projects, names.api_keys, names.users)
    pairs = zip((*_ID_AND_NAME, _USER_AND_NAME), known_names, strict=True)
    for (id_key, name_key), known in pairs:
        if id_key == "user_id" and not users:
            continue
        if id_key in attributes:
            id_ = str(attributes[id_key])
            attributes[name_key] = known.get(id_) or UNKNOWN
    return attributes


def estimate_attributes(endpoint: Endpoint, raw: Attributes) -> Attributes:
    """Return the attributes of the estimated cost of a stored series.

    A tool call is a charge of its own, in the estimate as on the bill: it has no model.
    """
    attributes: Attributes = {**raw, "currency": CURRENCY}
    attributes.pop("user_id", None)
    attributes.pop("user_name", None)
    attributes.pop("estimated", None)
    if endpoint.tool:
        attributes.pop("model", None)
    return attributes


def unnamed(dims: Mapping[str, str], names: Names) -> bool:
    """Return whether an id among the dimensions has no name yet.

    An id that is known to have no name (None in `names`) does not count.
    """
    project = dims.get("project_id")
    api_key = dims.get("api_key_id")
    project_is_unnamed = project is not None and project not in names.projects
    api_key_is_unnamed = api_key is not None and api_key not in names.api_keys
    return project_is_unnamed or api_key_is_unnamed
