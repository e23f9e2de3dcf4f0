"""The command line's HTTP client: JSON requests to a running server, with errors a person can act on."""

from __future__ import annotations

from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import orjson


class ServerError(Exception):
    """Raised when a server refuses or cannot be reached."""


def call(url: str, body: bytes | None = None) -> Any:
    """GET `url`, or POST `body` to it; returns the parsed response. Raises ServerError with the server's message."""
    try:
        with urlopen(Request(url, body, {"content-type": "application/json"}), timeout=30) as response:
            return orjson.loads(response.read())
    except HTTPError as error:
        try:
            message = orjson.loads(error.read())["error"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            message = error.reason
        raise ServerError(f"{error.code}: {message}") from None
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise ServerError(f"No server answers at {url} ({reason}). Start one with: flywheel up") from None
