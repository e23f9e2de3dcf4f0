"""Protection against cross-site request forgery and DNS rebinding for endpoints that change something.

A page of any site can make a browser post a form or text to an address that only the browser's machine reaches, and can
let its own domain resolve to that address. It cannot forge `Host` or `Origin`, nor send `application/json` to another
site without that site's permission (CORS), which this server never gives. So these endpoints check all three.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence

from starlette.datastructures import Headers

from serve.errors import Forbidden, UnsupportedMediaType

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]{1,253})(?::([0-9]{1,5}))?")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_PORTS = {"http": 80, "https": 443}  # default ports, which an origin omits
_SHOWN = 100  # characters of a header quoted in an error


def refuse_pages(headers: Headers, hosts: Collection[str] | None) -> None:
    """Raises Forbidden for a Host not in `hosts` (None: any) or a foreign Origin, UnsupportedMediaType unless JSON."""
    host, port = _own_host(headers.getlist("host"), hosts)
    for origin in headers.getlist("origin"):
        if not _is_origin_of(origin, host, port):
            raise Forbidden(
                f"Origin {origin[:_SHOWN]!r} is not this server's: pages of other sites may change nothing here; "
                "send no Origin, or set a proxy in between to pass Host on as it comes"
            )
    declared = headers.get("content-type", "")
    if declared.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType(
            f"content-type {declared[:_SHOWN]!r} is not supported; set it to application/json, with or without a body"
        )


def refuse_foreign_host(headers: Headers, hosts: Collection[str] | None) -> None:
    """Raises Forbidden for a Host not in `hosts`, as of a page whose domain resolves here to read texts of users."""
    _own_host(headers.getlist("host"), hosts)


def accepted_hosts(host: str, hosts: Sequence[str] | None) -> frozenset[str] | None:
    """The accepted values of Host for a server that listens on `host` and has `hosts` configured; None: any."""
    if hosts is not None:
        return frozenset(parse_host(name)[0] for name in hosts)
    if is_loopback(host):
        return frozenset((*_LOOPBACK, parse_host(f"[{host}]" if ":" in host else host)[0]))
    return None


def parse_host(value: str) -> tuple[str, int | None]:
    """The name or address in `value`, normalized, and its port if it has one. Raises ValueError if malformed."""
    found = _HOST.fullmatch(value.lower()) if value.isascii() else None
    if found is None:
        raise ValueError(f"{value[:_SHOWN]!r} is not a host; an IPv6 address goes in brackets")
    host, port = found[1], None if found[2] is None else int(found[2])
    if port is not None and not 0 < port < 65536:
        raise ValueError(f"{port} is not a port")
    if host.startswith("["):
        return f"[{ipaddress.IPv6Address(host[1:-1])}]", port
    if any(not label or label.startswith("-") or label.endswith("-") for label in host.split(".")):
        raise ValueError(f"{host!r} is not a host")
    return host, port


def is_loopback(host: str) -> bool:
    """Whether a server that listens on `host` is reachable from its own machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _own_host(given: Sequence[str], hosts: Collection[str] | None) -> tuple[str, int | None]:
    if len(given) != 1:
        raise Forbidden(f"a request here needs one Host header, not {len(given)}; set it to the server's name")
    try:
        host, port = parse_host(given[0])
    except ValueError:
        raise Forbidden(
            f"Host {given[0][:_SHOWN]!r} is malformed; set it to name, address or [IPv6 address], and :port"
        ) from None
    if hosts is not None and host not in hosts:
        raise Forbidden(f"Host {host!r} is not one that this server goes by; set server.hosts to those that it has")
    return host, port


def _is_origin_of(origin: str, host: str, port: int | None) -> bool:
    scheme, _, address = origin.partition("://")
    default = _PORTS.get(scheme.lower())
    try:
        named, own_port = parse_host(address)
    except ValueError:  # `null` as well
        return False
    return default is not None and (named, own_port or default) == (host, port or default)
