"""Reading of a request's headers, body and deadline."""

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
_TIMEOUT = "x-request-timeout-seconds"  # Ray Serve's name


def query_parameters(request: Request, *names: str) -> dict[str, str]:
    """The query's parameters. Raises InvalidRequest for one that is none of `names`, and for one given twice."""
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in names:
            known = ", ".join(names) or "none"
            raise InvalidRequest(f"{name[:100]}: there is no such parameter here; there are: {known}")
        if name in given:
            raise InvalidRequest(f"{name}: is given twice")
        given[name] = value
    return given


async def read_body(request: Request, limit: int, deadline: float) -> bytes:
    """The body. `deadline` is in time.monotonic.

    Raises BodyTooLarge as soon as it is known to exceed `limit` bytes, DeadlineExceeded when it has not arrived by the
    deadline, ClientLeft when the client disconnects first.
    """
    # Most bodies arrive with their headers and cannot stall, so they need no timer.
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
                    raise ClientLeft("the client disconnected before its body had arrived")
                parts.append(part := message.get("body", b""))
                size += len(part)
                if size > limit:
                    raise BodyTooLarge(f"the body has more than {limit} bytes, which is the most allowed", limit=limit)
                more = message.get("more_body", False)
    except TimeoutError:
        raise DeadlineExceeded("the deadline passed before the body had arrived") from None
    return b"".join(parts)


def requested_timeout_s(request: Request, max_s: float) -> float:
    """The timeout in the client's header, at most `max_s`, which is also the default. Raises InvalidRequest."""
    header = request.headers.get(_TIMEOUT)
    if header is None:
        return max_s
    try:
        seconds = float(header)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise InvalidRequest(f"{_TIMEOUT}: {header[:20]!r} is not a number of seconds above 0")
    return min(seconds, max_s)


def refused_by_proxy(request: Request) -> tuple[int, int] | None:
    """Numbers of predict and infer requests that HAProxy has refused for this replica since its last report.

    See haproxy.py. None when the header is missing or malformed.
    """
    header = request.headers.get(REFUSED)
    if header is None or not (counts := _REFUSED_COUNTS.fullmatch(header)):
        return None
    return int(counts[1]), int(counts[2])


def require_json(request: Request, *, binary: bool = False) -> None:
    """Raises UnsupportedMediaType unless the content type is JSON, missing or, with `binary`, an octet stream."""
    encoding = request.headers.get("content-encoding", "")
    if any(coding.strip().lower() not in ("", "identity") for coding in encoding.split(",")):
        raise UnsupportedMediaType(f"content-encoding {encoding[:100]!r} is not supported; send the body as it is")
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared in ("", "application/json") or declared.endswith("+json"):
        return
    if binary and declared == "application/octet-stream":
        return
    raise UnsupportedMediaType(f"content-type {declared[:100]!r} is not supported; send application/json")
