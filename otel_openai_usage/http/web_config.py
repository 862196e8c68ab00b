"""Reads a web config file.

What we do not support is refused by name and never ignored: the file protects the listener.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import bcrypt
import yaml

from otel_openai_usage.errors import ConfigError
from otel_openai_usage.http.tls import Tls

_T = TypeVar("_T")

_VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
_CLIENT_AUTH_TYPES = {
    "": ssl.CERT_NONE,
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
LARGEST = 256 * 2**10
"""Bytes of a web config file. Two thousand users fit; reading it takes a second or two."""
_TLS_KEYS = (
    "cert_file",
    "key_file",
    "client_auth_type",
    "client_ca_file",
    "min_version",
    "max_version",
    "prefer_server_cipher_suites",
)
_NOT_SUPPORTED = {
    "rate_limit": "limit requests in a proxy in front",
    "tls_server_config.cert": "put the certificate into a file and name it as cert_file",
    "tls_server_config.key": "put the key into a file and name it as key_file",
    "tls_server_config.client_ca": "put the CA into a file and name it as client_ca_file",
    "tls_server_config.client_allowed_sans": "use a client CA of its own",
    "tls_server_config.cipher_suites": "Python's own choice is used",
    "tls_server_config.curve_preferences": "Python's own choice is used",
}
"""Keys of the format that we do not support, and what to do instead."""
_HEADERS: Mapping[str, tuple[str, ...]] = {
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}
"""The headers that may be set, and their allowed values; empty for any text."""
_BCRYPT = re.compile(
    r"(?P<version>\$2[abxy]?)\$(?P<cost>\d\d)\$(?P<salt>[./A-Za-z0-9]{22})[./A-Za-z0-9]{31}"
)
_MAX_COST = 18
"""The largest cost of a bcrypt hash. Each step doubles the time, and 18 takes 15 seconds."""


@dataclass(frozen=True, slots=True)
class WebConfig:
    """A web config file. `users` maps a name to a bcrypt hash."""

    path: Path
    tls: Tls | None
    users: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it names."""
        return self.tls.files if self.tls else ()


def read(path: Path) -> WebConfig:
    """Return the file, completely checked. Raises ConfigError with every problem.

    Relative paths are relative to the file.
    """
    try:
        tree = yaml.safe_load(_text(path))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError([f"web_config_file {path}: {_reason(error)}"]) from error
    return _Parser(path, tree).config()


def _text(path: Path) -> str:
    """Return the text of the file. Raises ConfigError if it is larger than any real one."""
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        size = f"larger than {LARGEST // 2**10} KiB"
        raise ConfigError([f"web_config_file {path}: {size}; name a web config file"])
    return content.decode()


class _Parser:
    """Parses the tree of a file and collects problems."""

    def __init__(self, path: Path, tree: object) -> None:
        self._path = path
        self._problems: list[str] = []
        known = ("tls_server_config", "http_server_config", "basic_auth_users")
        self._tree = self._mapping(tree, "", known)

    def config(self) -> WebConfig:
        tls = self._tls()
        config = WebConfig(self._path, tls, self._users(), self._headers())
        if self._problems:
            raise ConfigError(self._problems)
        if tls:
            tls.context()  # raises if a file cannot be used
        return config

    def _problem(self, key: str, text: str) -> None:
        place = f"{self._path}: {key}" if key else str(self._path)
        self._problems.append(f"{place}: {text}")

    def _mapping(
        self, tree: object, name: str, known: tuple[str, ...] | None = None
    ) -> dict[str, object]:
        """Return a part of the tree with its keys checked; empty if it is not a mapping."""
        if tree is None:
            return {}
        if not isinstance(tree, dict):
            self._problem(name, f"expected keys and values, got {type(tree).__name__}")
            return {}
        for key in tree:
            full_key = f"{name}.{key}" if name else str(key)
            if full_key in _NOT_SUPPORTED:
                self._problem(full_key, f"not supported here; {_NOT_SUPPORTED[full_key]}")
            elif known is not None and key not in known:
                self._problem(full_key, f"unknown key; known here are {', '.join(known)}")
        return {str(key): value for key, value in tree.items()}

    def _tls(self) -> Tls | None:
        tree = self._mapping(self._tree.get("tls_server_config"), "tls_server_config", _TLS_KEYS)
        if not tree:
            return None
        client_ca_file = self._file(tree, "client_ca_file")
        client_verification = self._choice(tree, "client_auth_type", _CLIENT_AUTH_TYPES, "")
        verifies_clients = client_verification != ssl.CERT_NONE
        if client_ca_file and not verifies_clients:
            self._problem(
                "tls_server_config.client_auth_type",
                "a client_ca_file needs RequireAndVerifyClientCert here",
            )
        if verifies_clients and not client_ca_file:
            self._problem(
                "tls_server_config.client_ca_file",
                "client_auth_type needs it, to verify clients with",
            )
        cert_file = self._file(tree, "cert_file", needed=True)
        key_file = self._file(tree, "key_file", needed=True)
        prefers_server = tree.get("prefer_server_cipher_suites", True) is not False
        return Tls(
            cert_file=cert_file or Path(),  # a missing one is a problem already
            key_file=key_file or Path(),
            client_ca_file=client_ca_file,
            client_verification=client_verification,
            min_version=self._choice(tree, "min_version", _VERSIONS, "TLS12"),
            max_version=self._choice(tree, "max_version", _VERSIONS, "TLS13"),
            prefer_server_ciphers=prefers_server,
        )

    def _file(self, tree: Mapping[str, object], key: str, *, needed: bool = False) -> Path | None:
        value = tree.get(key) or ""
        if not isinstance(value, str) or (needed and not value):
            full_key = f"tls_server_config.{key}"
            self._problem(full_key, f"expected the path of a PEM file, got {value!r}")
            return None
        return self._path.parent / value if value else None

    def _choice(
        self, tree: Mapping[str, object], key: str, choices: Mapping[str, _T], default: str
    ) -> _T:
        value = tree.get(key, default)
        if value not in choices:
            names = ", ".join(filter(None, choices))
            self._problem(f"tls_server_config.{key}", f"expected one of {names}, got {value!r}")
            return choices[default]
        return choices[str(value)]

    def _users(self) -> dict[str, str]:
        tree = self._mapping(self._tree.get("basic_auth_users"), "basic_auth_users")
        for user, hashed in tree.items():
            problem = _hash_problem(hashed)
            if problem is not None:
                self._problem(f"basic_auth_users.{user}", problem)
        return {user: str(hashed) for user, hashed in tree.items()}

    def _headers(self) -> dict[str, str]:
        server = self._mapping(
            self._tree.get("http_server_config"), "http_server_config", ("http2", "headers")
        )
        tree = self._mapping(server.get("headers"), "http_server_config.headers", tuple(_HEADERS))
        for name, value in tree.items():
            allowed = _HEADERS.get(name, ())
            if not _is_header_value(value, allowed):
                expected = " or ".join(allowed) or "one line of text"
                full_key = f"http_server_config.headers.{name}"
                self._problem(full_key, f"expected {expected}, got {value!r}")
        return {name: str(value) for name, value in tree.items()}


def _is_header_value(value: object, allowed: tuple[str, ...]) -> bool:
    if not isinstance(value, str):
        return False
    if "\n" in value or "\r" in value:
        return False
    return not allowed or value in allowed


def _hash_problem(hashed: object) -> str | None:
    """Return why bcrypt cannot compare a password with this; None if it can."""
    found = _BCRYPT.fullmatch(hashed) if isinstance(hashed, str) else None
    if found is None:
        return "expected a bcrypt hash, as `htpasswd -nBC 10 ''` prints it, not the password"
    new_hash = "make a new one with `htpasswd -nBC 10 ''`"
    cost = int(found["cost"])
    if not 4 <= cost <= _MAX_COST:
        return (
            f"expected a bcrypt hash of cost 4 to {_MAX_COST}, got one of cost {cost}; {new_hash}"
        )
    # Comparing is slow by the cost, so version and salt are tried with the smallest one.
    try:
        bcrypt.hashpw(b"", f"{found['version']}$04${found['salt']}".encode())
    except ValueError as error:
        return f"bcrypt refuses this hash: {error}; {new_hash}"
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror or error}; name a file that can be read"
    return f"not YAML: {error}"
