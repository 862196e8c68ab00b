"""What settings ask for: keys that must be there, a place for the state."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from otel_openai_usage.config.location import DatabaseLocation, Location
from otel_openai_usage.config.settings import Organization, Settings
from otel_openai_usage.errors import ConfigError

_HOW = (
    "Set OPENAI_ADMIN_KEY, or admin_key_file in the configuration. An owner of the organization makes an admin key (sk-admin-…) at"
    " https://platform.openai.com/settings/organization/admin-keys; one that may only read usage (api.usage.read) is enough for usage"
    " and costs, with api.management.read it gets names and limits too. With an ordinary key only, set OPENAI_API_KEY: it is enough for"
    " the legacy source (legacy.enabled)"
)


def needs_key(settings: Settings) -> list[str]:
    """The enabled sections that read from OpenAI with an admin key. A standby replica reads none."""
    if settings.state.standby:
        return []
    return [
        name for name in ("usage", "costs", "names", "limits") if getattr(settings, name).enabled
    ]


def require_keys(settings: Settings) -> None:
    """Raise ConfigError unless every organization has an admin key, and the legacy source its own,
    where an enabled source needs it.
    """
    if settings.reads_legacy and settings.legacy.api_key is None:
        raise ConfigError(
            ["legacy.api_key: the legacy source needs an ordinary key: set it, or OPENAI_API_KEY"]
        )
    users = needs_key(settings)
    if not users:
        return
    problems: list[str] = []
    for index, one in enumerate(settings.organizations):
        problems += _missing(index, one)
    if problems:
        # How to get a key is said once, after the last problem.
        problems[-1] += f"; without one {', '.join(users)} cannot be read. {_HOW}"
        raise ConfigError(problems)


def _missing(index: int, one: Organization) -> Iterator[str]:
    if one.admin_key_file is not None:
        if reason := _unreadable(one.admin_key_file):
            yield f"organizations[{index}].admin_key_file: {reason}"
    elif one.admin_key is None:
        yield f"organizations[{index}].admin_key: {one.name!r} has no admin key"


def _unreadable(file: Path) -> str | None:
    try:
        empty = not file.read_bytes().strip()
    except OSError as error:
        return f"reading {str(file)!r}: {error.strerror or error}"
    return f"{str(file)!r} is empty" if empty else None


def state_location(settings: Settings, env: Mapping[str, str]) -> Location:
    """Where the state is: the database of `state.url`, else the file of `state_file`.

    Raises ConfigError as `state_file`.
    """
    state = settings.state
    if state.url is None:
        return state_file(settings, env)
    return DatabaseLocation(
        state.url.get_secret_value(),
        password_file=state.password_file,
        lease=state.lease.total_seconds(),
        connections=state.connections,
        standby=state.standby,
    )


def state_file(settings: Settings, env: Mapping[str, str]) -> Path:
    """Where the state file is: `state.path`, else in the user's state directory (XDG). `:memory:`
    stays as it is.

    Raises ConfigError if there is no such directory.
    """
    if settings.state.path is not None:
        return settings.state.path
    try:
        # An empty XDG variable counts as unset, as the XDG specification says.
        home = env.get("XDG_STATE_HOME")
        if not home:
            user = Path(env.get("HOME") or "~").expanduser()
            home = str(user / ".local" / "state")
    except RuntimeError:  # a user without a home, as in some containers
        raise ConfigError(
            [
                "state.path: this user has no home directory; name a file, or set HOME or XDG_STATE_HOME"
            ]
        ) from None
    return Path(home) / "otel-openai-usage" / "state.db"
