"""The command line's HTTP client: JSON requests to a running server, with errors a person can act on."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPException
from types import MappingProxyType
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import ProxyHandler, Request, build_opener, getproxies, proxy_bypass

import orjson

_TIMEOUT_S = 30


class ServerError(Exception):
    """Raised when a server refuses or cannot be reached.

    `status`, `body` and `retry_after_s` are those of the response; None, empty and None if there was none.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        body: Mapping[str, Any] = MappingProxyType({}),
        retry_after_s: float | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.body = body
        self.retry_after_s = retry_after_s


def call(
    url: str,
    path: str,
    body: bytes | None = None,
    *,
    method: str | None = None,
    query: Mapping[str, str | int] = MappingProxyType({}),
    token: str | None = None,
) -> Any:
    """`fetch`, and the parsed JSON of the response."""
    return _parsed(fetch(url, path, body, method=method, query=query, token=token), url)


def fetch(
    url: str,
    path: str,
    body: bytes | None = None,
    *,
    method: str | None = None,
    query: Mapping[str, str | int] = MappingProxyType({}),
    token: str | None = None,
) -> bytes:
    """GET `path` of the server at `url`, or POST `body` to it; returns the content of the response.

    `method` is another one than these. `token`: the operator's.
    `url` may lack its scheme and may end with a slash. Proxies of the environment are used as NO_PROXY says, and never
    for this machine. Raises ServerError with the server's message.
    """
    url, proxies = base_url(url), {}
    address = urlsplit(url)
    if not _is_this_machine(address.hostname or "") and not proxy_bypass(address.netloc):
        proxies = getproxies()
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
    address_of = url + quote(path) + (f"?{urlencode(query)}" if query else "")
    request = Request(address_of, body, headers, method=method)
    try:
        with build_opener(ProxyHandler(proxies)).open(request, timeout=_TIMEOUT_S) as response:
            content: bytes = response.read()
            return content
    except HTTPError as error:
        raise _refusal(error) from None
    except (URLError, HTTPException, OSError) as error:
        reason = getattr(error, "reason", "") or error or type(error).__name__
        proxy = proxies.get(address.scheme)
        way = f" through the proxy {_without_password(proxy)} of the environment" if proxy else ""
        raise ServerError(f"No server answers at {url}{way} ({reason}). Start one with: flywheel up") from None


def _refusal(error: HTTPError) -> ServerError:
    try:
        body = orjson.loads(error.read())
        message = body["error"]
    except (orjson.JSONDecodeError, KeyError, TypeError, OSError, HTTPException):
        # a proxy's page, or a broken connection
        body, message = {}, error.reason
    wait = error.headers.get("retry-after", "")
    return ServerError(f"{error.code}: {message}", error.code, body, float(wait) if wait.isdecimal() else None)


def base_url(url: str) -> str:
    """`url` with its scheme and without a slash at its end. Raises ServerError unless it is one of a server."""
    url = url.strip()
    if "://" not in url:
        url = f"http://{url}"
    with suppress(ValueError):  # of a port that is none
        parts = urlsplit(url)
        strange = (
            parts.query or parts.fragment or parts.port == 0 or any(c.isspace() or not c.isprintable() for c in url)
        )
        if parts.scheme in ("http", "https") and parts.hostname and not strange:
            return (parts.scheme + url[len(parts.scheme) :]).rstrip("/")
    raise ServerError(f"{url!r} is not the address of a server; it looks like http://127.0.0.1:8000")


def _parsed(content: bytes, url: str) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        raise ServerError(f"What answers at {base_url(url)} is not Flywheel: it sends no JSON.") from None


def _is_this_machine(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _without_password(proxy: str) -> str:
    return proxy.rpartition("@")[2] if "@" in proxy else proxy
