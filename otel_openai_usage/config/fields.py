"""The types of which settings are made, and the base of every section."""

import re
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    SecretStr,
    ValidationError,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from otel_openai_usage.config.placeholders import Expanded
from otel_openai_usage.config.quantities import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)
from otel_openai_usage.config.secrets import MASK


class Section(BaseModel):
    """A part of the settings: frozen, and without room for unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    @field_validator("*", mode="wrap")
    @classmethod
    def _text_first(cls, value: object, validate: Callable[[object], object]) -> object:
        """A placeholder's text is tried as it is, then as what YAML makes of it: `${env:GROUPS}`
        may be a list.
        """
        if not isinstance(value, Expanded):
            return validate(value)
        try:
            return validate(str(value))
        except ValidationError:
            return validate(value.typed)


def problem(sentence: str) -> PydanticCustomError:
    """An error whose whole message is `sentence`."""
    return PydanticCustomError("problem", "{sentence}", {"sentence": sentence})


def _told(parse: Callable[[object], object]) -> Callable[[object], object]:
    """`parse`, with its ValueError as a problem in our own words."""

    def told(value: object) -> object:
        try:
            return parse(value)
        except ValueError as error:
            raise problem(str(error)) from None

    return told


def at_least(least: timedelta) -> BeforeValidator:
    """Refuses shorter durations."""

    def check(value: object) -> timedelta:
        duration = parse_duration(value)
        if duration < least:
            raise ValueError(
                f"expected a duration of at least {format_duration(least)}, got {value!r}"
            )
        return duration

    return BeforeValidator(_told(check))


_DURATION_SCHEMA = {
    "type": "string",
    "pattern": DURATION_PATTERN,
    "examples": ["500ms", "30s", "5m", "3h", "7d"],
}
_AS_DURATION = (PlainSerializer(format_duration, return_type=str), WithJsonSchema(_DURATION_SCHEMA))

Duration: TypeAlias = Annotated[timedelta, at_least(timedelta(0)), *_AS_DURATION]
PositiveDuration: TypeAlias = Annotated[
    timedelta, at_least(timedelta(milliseconds=1)), *_AS_DURATION
]
Interval: TypeAlias = Annotated[timedelta, at_least(timedelta(seconds=1)), *_AS_DURATION]


def _optional_duration(value: object) -> object:
    if value is None or isinstance(value, timedelta):
        return value
    duration = parse_duration(value)
    if duration < timedelta(seconds=1):
        raise ValueError(f"expected at least 1s, got {value!r}")
    return duration


OptionalInterval: TypeAlias = Annotated[
    timedelta | None,
    BeforeValidator(_told(_optional_duration)),
    PlainSerializer(lambda one: one and format_duration(one), return_type=str | None),
    WithJsonSchema({"anyOf": [_DURATION_SCHEMA, {"type": "null"}]}),
]


def _start(value: object) -> object:
    if value in ("now", "today"):
        return value
    try:
        return parse_duration(value)
    except ValueError:
        raise ValueError(
            f"expected now, today or a duration such as 6h or 7d, got {value!r}"
        ) from None


Start: TypeAlias = Annotated[
    timedelta | Literal["now", "today"],
    BeforeValidator(_told(_start)),
    PlainSerializer(
        lambda start: start if isinstance(start, str) else format_duration(start), return_type=str
    ),
    WithJsonSchema({"anyOf": [{"enum": ["now", "today"]}, _DURATION_SCHEMA]}),
]


def _first(value: object) -> object:
    if value in ("month", "none"):
        return value
    try:
        return parse_duration(value)
    except ValueError:
        raise ValueError(f"expected month, none or a duration such as 30d, got {value!r}") from None


First: TypeAlias = Annotated[
    timedelta | Literal["month", "none"],
    BeforeValidator(_told(_first)),
    PlainSerializer(
        lambda first: first if isinstance(first, str) else format_duration(first), return_type=str
    ),
    WithJsonSchema({"anyOf": [{"enum": ["month", "none"]}, _DURATION_SCHEMA]}),
]

Size: TypeAlias = Annotated[
    int,
    BeforeValidator(_told(parse_size)),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": SIZE_PATTERN, "examples": ["64KiB", "1MiB"]},
            ]
        }
    ),
]


def _auto(value: object) -> object:
    # Text, too: a placeholder gives text where YAML gives a bool.
    words = {"auto": "auto", "true": True, "false": False, True: True, False: False}
    if isinstance(value, str | bool) and value in words:
        return words[value]
    raise ValueError(f"expected auto, true or false, got {value!r}")


Auto: TypeAlias = Annotated[
    Literal["auto"] | bool,
    BeforeValidator(_told(_auto)),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "boolean"}]}),
]


def _whole(value: object) -> object:
    if isinstance(value, bool | float):
        raise ValueError(f"expected a whole number, got {str(value).lower()}")
    return value


WHOLE = BeforeValidator(_told(_whole))
"""Goes with int; pydantic alone would also take true and 1.0."""


def _emptied(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


Text: TypeAlias = Annotated[str | None, BeforeValidator(_emptied)]
"""Text, or None; empty text is None."""


def _secret(value: object) -> object:
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str):
        raise ValueError("expected text; put it in quotes")
    # A key from a file or a shell often has a line end, which an HTTP header cannot have.
    key = value.strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ValueError(
            "expected a key of printable ASCII characters without blanks (it is not shown here)"
        )
    return key


def _optional_secret(value: object) -> object:
    return None if _emptied(value) is None else _secret(value)


def _masked(secret: SecretStr | None) -> str | None:
    return None if secret is None else MASK


Secret: TypeAlias = Annotated[
    SecretStr, BeforeValidator(_told(_secret)), PlainSerializer(_masked, return_type=str | None)
]
OptionalSecret: TypeAlias = Annotated[
    SecretStr | None,
    BeforeValidator(_told(_optional_secret)),
    PlainSerializer(_masked, return_type=str | None),
]


def _money(value: object) -> object:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"expected a number above 0, got {value!r}")
    try:
        amount = Decimal(str(value))
    except ArithmeticError:
        raise ValueError(f"expected a number above 0, got {value!r}") from None
    if not amount.is_finite() or amount <= 0:
        raise ValueError(f"expected a number above 0, got {value!r}")
    return amount


def _plain_number(amount: Decimal) -> int | float:
    return int(amount) if amount == int(amount) else float(amount)


Amount: TypeAlias = Annotated[
    Decimal,
    BeforeValidator(_told(_money)),
    PlainSerializer(_plain_number, return_type=int | float),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0}),
]
"""A positive amount of money, or a part of one."""


def _day(value: object) -> object:
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f"expected a UTC day such as 2026-11-01, got {value!r}") from None


def _optional_day(value: object) -> object:
    return None if value is None else _day(value)


Day: TypeAlias = Annotated[
    date,
    BeforeValidator(_told(_day)),
    PlainSerializer(date.isoformat, return_type=str),
    WithJsonSchema({"type": "string", "format": "date"}),
]
OptionalDay: TypeAlias = Annotated[
    date | None,
    BeforeValidator(_told(_optional_day)),
    PlainSerializer(lambda day: day and day.isoformat(), return_type=str | None),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]}),
]
"""A UTC day."""

DATABASE_SCHEMES = ("postgresql", "postgres")


def _database_url(value: object) -> object:
    # A SecretStr, because the URL may have a password.
    text = value.get_secret_value() if isinstance(value, SecretStr) else _emptied(value)
    if text is None:
        return None
    if not isinstance(text, str) or not text.isprintable():
        raise ValueError("expected a URL (it is not shown here, because it may have a password)")
    scheme, colon, rest = text.partition("://")
    if scheme not in DATABASE_SCHEMES or not colon or not rest:
        raise ValueError(
            "expected postgresql://user@host:5432/database"
            " (what it is now is not shown here, because it may have a password)"
        )
    return text


DatabaseUrl: TypeAlias = Annotated[
    SecretStr | None,
    BeforeValidator(_told(_database_url)),
    PlainSerializer(_masked, return_type=str | None),
]


def _header(value: object) -> object:
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
        raise ValueError("expected printable ASCII text (it is not shown here); put it in quotes")
    return value


HeaderValue: TypeAlias = Annotated[
    SecretStr, BeforeValidator(_told(_header)), PlainSerializer(_masked, return_type=str | None)
]


def _path(value: object) -> object:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"expected a path, got {value!r}")
    try:
        return Path(value).expanduser() if value else None
    except RuntimeError:
        raise ValueError(
            f"expected a path, got {value!r}, and there is no such home directory"
        ) from None


File: TypeAlias = Annotated[
    Path | None,
    BeforeValidator(_told(_path)),
    PlainSerializer(lambda path: path and str(path), return_type=str | None),
]
"""A path; `~` is the home directory, and a relative one begins where the program was started."""


def check_host(host: str) -> None:
    """ValueError for a host that no name can be: an empty part, one of more than 63 characters, or
    characters that neither DNS nor an address has.
    """
    try:
        ip_address(host.partition("%")[0])
        return
    except ValueError:
        pass
    try:
        ascii_host = host.removesuffix(".").encode("idna").decode("ascii")
    except UnicodeError:
        ascii_host = ""
    labels = ascii_host.split(".")
    if len(ascii_host) > _LONGEST_HOST or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(
            f"expected a host whose parts have 1 to 63 letters, digits and hyphens, got {host[:80]!r}"
        )


_LONGEST_HOST = 253
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")


def web_address(value: object) -> str:
    """An http(s) URL without its trailing slash. ValueError for anything else, and for one that
    holds a secret.
    """
    text = value.strip() if isinstance(value, str) else ""
    try:
        url = urlsplit(text)
        host = url.hostname
        # urlsplit tests the port only when it is read.
        _ = url.port
    except ValueError:
        host = None
        url = urlsplit("")
    if url.scheme not in ("http", "https") or not host:
        raise ValueError(f"expected a URL such as https://api.openai.com/v1, got {value!r}")
    check_host(host)
    # URLs appear in logs, where a password or a key must not.
    if url.username or url.password or url.query or url.fragment:
        raise ValueError("expected a URL without user, password, ? and #")
    return text.rstrip("/")


Url: TypeAlias = Annotated[str, BeforeValidator(_told(web_address))]
OptionalUrl: TypeAlias = Annotated[
    str | None,
    BeforeValidator(_told(lambda value: None if _emptied(value) is None else web_address(value))),
]


def loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def plain(value: Any) -> object:
    """A placeholder's value as YAML types it, anything else as it is."""
    return value.typed if isinstance(value, Expanded) else value


Plain: TypeAlias = Annotated[str | bool | int | float, BeforeValidator(plain)]
