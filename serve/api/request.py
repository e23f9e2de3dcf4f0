"""A request as it comes in: its headers, its body and its deadline."""

from __future__ import annotations

import asyncio
import math
import re
import time
from contextlib import nullcontext

from starlette.requests import Request

from serve.api.connection import connection_of
from serve.api.headers import REFUSED
from serve.errors import BodyTooLarge, ClientLeft, DeadlineExceeded, InvalidRequest, UnsupportedMediaType

_REFUSED_COUNTS = re.compile(r"([0-9]{1,9}) ([0-9]{1,9})")
_TIMEOUT = "x-request-timeout-seconds"  # the name Ray Serve gave it


async def read_body(request: Request, limit: int, deadline: float) -> bytes:
    """The body. Raises BodyTooLarge as soon as it is known to exceed `limit` bytes, DeadlineExceeded if it stalls."""
    # A body that came with its headers, as most do, cannot stall: no timer for it.
    connection = connection_of(request)
    stalls = connection is None or connection.more_body
    timer = asyncio.timeout(deadline - time.monotonic()) if stalls else nullcontext()
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise BodyTooLarge(f"the body has {declared} bytes; at most {limit} are allowed", limit=limit)
    parts, size, more = [], 0, True
    try:
        async with timer:
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft("the client left before its body had arrived")
                parts.append(part := message.get("body", b""))
                size += len(part)
                if size > limit:
                    raise BodyTooLarge(f"the body has more than {limit} bytes, which is the most allowed", limit=limit)
                more = message.get("more_body", False)
    except TimeoutError:
        raise DeadlineExceeded("the deadline passed before the body had arrived") from None
    return b"".join(parts)


def seconds_allowed(request: Request, longest: float) -> float:
    """What the client's header allows, and no more than `longest`. Raises InvalidRequest when it is no such number."""
    asked = request.headers.get(_TIMEOUT)
    if asked is None:
        return longest
    try:
        seconds = float(asked)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise InvalidRequest(f"{_TIMEOUT}: {asked[:20]!r} is not a number of seconds above 0")
    return min(seconds, longest)


def refused_before(request: Request) -> tuple[int, int] | None:
    """The predicts and infers that HAProxy has refused for this replica and not told it of yet (haproxy.py)."""
    told = request.headers.get(REFUSED)
    if told is None or not (counts := _REFUSED_COUNTS.fullmatch(told)):
        return None
    return int(counts[1]), int(counts[2])


def require_json(request: Request, *, binary: bool = False) -> None:
    """Raises UnsupportedMediaType unless the body is declared as JSON (or as nothing, or as tensors)."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise UnsupportedMediaType(f"content-encoding {encoding!r} is not supported; send the body as it is")
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared in ("", "application/json") or declared.endswith("+json"):
        return
    if binary and declared == "application/octet-stream":
        return
    raise UnsupportedMediaType(f"content-type {declared!r} is not supported; send application/json")
