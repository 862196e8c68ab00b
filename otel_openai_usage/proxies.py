"""Which proxy a URL is asked through, by the variables that curl, Go and Python's urllib know.

`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in lower case first. A proxy without a
scheme is an http one. What cannot be used is an error that names the variable: going around a proxy
in silence would be worse.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, unquote, urlsplit

from otel_openai_usage.config.fields import check_host
from otel_openai_usage.errors import ConfigError

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the variable that named it. Its user and password are in no text."""

    url: str
    variable: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def login(self) -> dict[str, str]:
        """The header that logs in to the proxy; empty without a user."""
        if not self.user:
            return {}
        pair = b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Proxy-Authorization": f"Basic {pair}"}


def proxy_for(url: str, env: Mapping[str, str]) -> Proxy | None:
    """The proxy for requests to `url`; None where it is asked directly. Raises ConfigError."""
    target = urlsplit(url)
    names = [f"{target.scheme}_proxy", "all_proxy"]
    for name in (spelling for plain in names for spelling in (plain, plain.upper())):
        if value := env.get(name, "").strip():
            if _is_excepted(target, env.get("no_proxy") or env.get("NO_PROXY", "")):
                return None
            try:
                return _parsed(name, value)
            except ValueError as error:
                raise ConfigError([f"{name}: {error}"]) from error
    return None


def _parsed(variable: str, value: str) -> Proxy:
    """ValueError for what is no proxy that we can use; its text holds no password."""
    url = urlsplit(value if "://" in value else f"http://{value}")
    if url.scheme not in _PORTS:
        raise ValueError(
            f"proxies are http:// or https:// here, not {url.scheme}://; name one of these, or list"
            " the host of base_url in NO_PROXY"
        )
    try:
        port = url.port or _PORTS[url.scheme]
    except ValueError:
        raise ValueError("expected a port from 1 to 65535") from None
    if not url.hostname:
        raise ValueError("expected a proxy such as http://proxy.example:3128, got no host")
    check_host(url.hostname)
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return Proxy(
        f"{url.scheme}://{host}:{port}",
        variable,
        unquote(url.username or ""),
        unquote(url.password or ""),
    )


def _is_excepted(target: SplitResult, no_proxy: str) -> bool:
    """Whether NO_PROXY lists the target: `*`, a host and all below it, an address or a network, each
    with a port or without.
    """
    host = (target.hostname or "").rstrip(".")
    port = target.port or _PORTS.get(target.scheme, 0)
    return any(
        _matches(entry.strip().lower(), host, port)
        for entry in no_proxy.split(",")
        if entry.strip()
    )


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    name, own_port = _without_port(entry)
    if own_port is not None and own_port != port:
        return False
    address = _address(host)
    if address is not None:
        try:
            return address in ip_network(name.strip("[]"), strict=False)
        except ValueError:
            return False
    suffix = name.removeprefix("*").strip(".")
    return bool(suffix) and (host == suffix or host.endswith(f".{suffix}"))


def _without_port(entry: str) -> tuple[str, int | None]:
    """The host of an entry, and its port if it has one."""
    head, colon, tail = entry.rpartition(":")
    is_ipv6 = ":" in head and not head.endswith("]")
    if colon and tail.isdigit() and not is_ipv6:
        return head, int(tail)
    return entry, None


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None
