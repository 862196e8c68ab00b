"""Reads a web config file; what we cannot honour is refused by name, never ignored: it guards a
door.
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

_T = TypeVar("_T")

_VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
_CLIENTS = {
    "": ssl.CERT_NONE,
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_TLS_KEYS = (
    "cert_file",
    "key_file",
    "client_auth_type",
    "client_ca_file",
    "min_version",
    "max_version",
    "prefer_server_cipher_suites",
)
_NOT_HERE = {
    "rate_limit": "not supported here; limit requests in a proxy in front",
    "tls_server_config.cert": "not supported here; put the certificate into a file and name it as cert_file",
    "tls_server_config.key": "not supported here; put the key into a file and name it as key_file",
    "tls_server_config.client_ca": "not supported here; put the CA into a file and name it as client_ca_file",
    "tls_server_config.client_allowed_sans": "not supported here; use a client CA of its own",
    "tls_server_config.cipher_suites": "not supported here; Python's own choice is used",
    "tls_server_config.curve_preferences": "not supported here; Python's own choice is used",
}
_HEADERS: Mapping[str, tuple[str, ...]] = {
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}
_BCRYPT = re.compile(r"\$2[abxy]?\$(\d\d)\$[./A-Za-z0-9]{53}")
_SLOWEST = 18
"""The largest cost of a bcrypt hash: each step doubles the time, and 18 takes a quarter of a minute."""


@dataclass(frozen=True, slots=True)
class Tls:
    """`tls_server_config`, checked."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None
    clients: ssl.VerifyMode
    versions: tuple[ssl.TLSVersion, ssl.TLSVersion]
    prefer_server: bool

    def context(self) -> ssl.SSLContext:
        """The server's side of TLS. Raises ConfigError if a file cannot be read or does not fit."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version, context.maximum_version = self.versions
        if self.prefer_server:
            context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
        reading = self.cert_file
        try:
            context.load_cert_chain(self.cert_file, self.key_file, password=_no_password)
            if self.client_ca_file:
                reading = self.client_ca_file
                context.load_verify_locations(self.client_ca_file)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            text = f"tls_server_config: {reading}: {error}; PEM files are expected that belong together, the key without a password"
            raise ConfigError([text]) from error
        context.verify_mode = self.clients
        return context


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
        if self.tls is None:
            return ()
        return tuple(
            file
            for file in (self.tls.cert_file, self.tls.key_file, self.tls.client_ca_file)
            if file
        )


def read(path: Path) -> WebConfig:
    """The file, checked in full. Raises ConfigError with every problem. Relative paths begin where
    the file is.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError([f"web_config_file {path}: {_short(error)}"]) from error
    return _Reader(path, {} if tree is None else tree).config()


class _Reader:
    """Reads the tree and gathers problems."""

    def __init__(self, path: Path, tree: object) -> None:
        self._path = path
        self._problems: list[str] = []
        self._tree = self._mapping(
            tree, "", ("tls_server_config", "http_server_config", "basic_auth_users")
        )

    def config(self) -> WebConfig:
        tls = self._tls()
        config = WebConfig(self._path, tls, self._users(), self._headers())
        if self._problems:
            raise ConfigError(self._problems)
        if tls:
            tls.context()
        return config

    def _problem(self, key: str, text: str) -> None:
        self._problems.append(f"{self._path}: {key}: {text}" if key else f"{self._path}: {text}")

    def _mapping(
        self, tree: object, at: str, known: tuple[str, ...] | None = None
    ) -> dict[str, object]:
        if tree is None:
            return {}
        if not isinstance(tree, dict):
            self._problem(at, f"expected keys and values, got {type(tree).__name__}")
            return {}
        for key in tree:
            full = f"{at}.{key}" if at else str(key)
            if full in _NOT_HERE:
                self._problem(full, _NOT_HERE[full])
            elif known is not None and key not in known:
                self._problem(full, f"unknown key; known here are {', '.join(known)}")
        return {str(key): value for key, value in tree.items()}

    def _tls(self) -> Tls | None:
        tree = self._mapping(self._tree.get("tls_server_config"), "tls_server_config", _TLS_KEYS)
        if not tree:
            return None
        ca = self._file(tree, "client_ca_file")
        clients = self._choice(tree, "client_auth_type", _CLIENTS, "")
        if ca and clients == ssl.CERT_NONE:
            self._problem(
                "tls_server_config.client_auth_type",
                "a client_ca_file needs RequireAndVerifyClientCert here",
            )
        if clients != ssl.CERT_NONE and not ca:
            self._problem(
                "tls_server_config.client_ca_file",
                "client_auth_type needs it, to verify clients with",
            )
        cert = self._file(tree, "cert_file", needed=True)
        key = self._file(tree, "key_file", needed=True)
        versions = (
            self._choice(tree, "min_version", _VERSIONS, "TLS12"),
            self._choice(tree, "max_version", _VERSIONS, "TLS13"),
        )
        return Tls(
            cert or Path(),
            key or Path(),
            ca,
            clients,
            versions,
            tree.get("prefer_server_cipher_suites", True) is not False,
        )

    def _file(self, tree: Mapping[str, object], key: str, *, needed: bool = False) -> Path | None:
        value = tree.get(key) or ""
        if not isinstance(value, str) or (needed and not value):
            self._problem(
                f"tls_server_config.{key}", f"expected the path of a PEM file, got {value!r}"
            )
            return None
        return self._path.parent / value if value else None

    def _choice(
        self, tree: Mapping[str, object], key: str, choices: Mapping[str, _T], default: str
    ) -> _T:
        value = tree.get(key, default)
        if value not in choices:
            self._problem(
                f"tls_server_config.{key}",
                f"expected one of {', '.join(filter(None, choices))}, got {value!r}",
            )
            value = default
        return choices[str(value)]

    def _users(self) -> dict[str, str]:
        tree = self._mapping(self._tree.get("basic_auth_users"), "basic_auth_users")
        for user, hashed in tree.items():
            if problem := _unusable(hashed):
                self._problem(f"basic_auth_users.{user}", problem)
        return {user: str(hashed) for user, hashed in tree.items()}

    def _headers(self) -> dict[str, str]:
        server = self._mapping(
            self._tree.get("http_server_config"), "http_server_config", ("http2", "headers")
        )
        tree = self._mapping(server.get("headers"), "http_server_config.headers", tuple(_HEADERS))
        for name, value in tree.items():
            allowed = _HEADERS.get(name, ())
            if (
                not isinstance(value, str)
                or "\n" in value
                or "\r" in value
                or (allowed and value not in allowed)
            ):
                self._problem(
                    f"http_server_config.headers.{name}",
                    f"expected {' or '.join(allowed) or 'one line of text'}, got {value!r}",
                )
        return {name: str(value) for name, value in tree.items()}


def _unusable(hashed: object) -> str | None:
    """Why bcrypt cannot compare a password with this; None if it can."""
    found = _BCRYPT.fullmatch(hashed) if isinstance(hashed, str) else None
    if found is None:
        return "expected a bcrypt hash, as `htpasswd -nBC 10 ''` prints it, not the password"
    cost = int(found[1])
    if not 4 <= cost <= _SLOWEST:
        return f"expected a bcrypt hash of cost 4 to {_SLOWEST}, got one of cost {cost}; make a new one with `htpasswd -nBC 10 ''`"
    # Comparing takes as long as the cost says, so version and salt are tried at the smallest one.
    version, salt = found[0][:4].rstrip("$"), found[0][-53:-31]
    try:
        bcrypt.hashpw(b"", f"{version}$04${salt}".encode())
    except ValueError as error:
        return f"bcrypt refuses this hash: {error}; make a new one with `htpasswd -nBC 10 ''`"
    return None


def _no_password() -> str:
    raise ValueError("the key has a password")  # else OpenSSL would ask for it on the terminal


def _short(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror or error}; name a file that can be read"
    return f"not YAML: {error}"
