"""The command line's HTTP client: JSON requests to a running server, with errors a person can act on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import orjson


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


def call(url: str, body: bytes | None = None) -> Any:
    """GET `url`, or POST `body` to it; returns the parsed response. Raises ServerError with the server's message."""
    try:
        with urlopen(Request(url, body, {"content-type": "application/json"}), timeout=30) as response:
            return orjson.loads(response.read())
    except HTTPError as error:
        raise _refusal(error) from None
    except orjson.JSONDecodeError:
        raise ServerError(f"What answers at {url} is not Flywheel: it sends no JSON.") from None
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise ServerError(f"No server answers at {url} ({reason}). Start one with: flywheel up") from None


def _refusal(error: HTTPError) -> ServerError:
    try:
        body = orjson.loads(error.read())
        message = body["error"]
    except (orjson.JSONDecodeError, KeyError, TypeError, OSError):  # a proxy's page, or a broken connection
        body, message = {}, error.reason
    wait = error.headers.get("retry-after", "")
    return ServerError(f"{error.code}: {message}", error.code, body, float(wait) if wait.isdecimal() else None)
