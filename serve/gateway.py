"""The ASGI application of one task: HTTP in, HTTP out, and nothing but HTTP. Runs under any ASGI server.

A predict request: `predict` reads the body, `schemas` checks it, `routing` picks the version, `replica` answers.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serve import oip
from serve.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    NotReady,
    RequestError,
    UnsupportedMediaType,
)
from serve.replica import LoadedVersion, Replica
from serve.schemas import parse_json, to_json, validate

log = logging.getLogger("flywheel.gateway")

_CLIENT_LEFT = 499  # nginx's number; nobody is there to read it, but the metrics are
_TIMEOUT = "x-request-timeout-seconds"  # the name Ray Serve gave it
Handler = Callable[[Request], Awaitable[Response]]
Answer = Callable[[Request, LoadedVersion, bytes, float], Awaitable[Response]]


def build_gateway(replica: Replica) -> ASGIApp:
    """The application for `replica`, at the full paths of the HTTP contract."""
    gateway = _Gateway(replica)
    base = f"/v2/models/{replica.task.name}"
    version = base + "/versions/{version}"
    app = Starlette(
        routes=[
            Route(f"{base}/predict", gateway.handle("predict", gateway.predict), methods=["POST"]),
            Route(f"{version}/predict", gateway.handle("predict", gateway.predict), methods=["POST"]),
            Route(f"{base}/infer", gateway.handle("infer", gateway.infer), methods=["POST"]),
            Route(f"{version}/infer", gateway.handle("infer", gateway.infer), methods=["POST"]),
            Route(base, plain(gateway.metadata), methods=["GET"]),
            Route(version, plain(gateway.metadata), methods=["GET"]),
            Route(f"{base}/ready", plain(gateway.ready), methods=["GET"]),
            Route(f"{version}/ready", plain(gateway.ready), methods=["GET"]),
        ],
        exception_handlers={HTTPException: on_http_exception},
        lifespan=gateway.lifespan,
    )
    app.router.redirect_slashes = False
    # The endpoints that carry the load are found by their path alone: Starlette's router and its two layers of
    # middleware take a fifth of the time a request spends in Python.
    hot = {
        f"{base}/predict": gateway.handle("predict", gateway.predict),
        f"{base}/infer": gateway.handle("infer", gateway.infer),
    }

    async def straight(scope: Scope, receive: Receive, send: Send) -> None:
        handler = hot.get(scope.get("path", ""))
        if handler is None or scope["method"] != "POST":
            await rest(scope, receive, send)
        else:
            response = await handler(Request(scope, receive))
            await response(scope, receive, send)

    rest = mount_at_root(app)
    return straight


class _Gateway:
    def __init__(self, replica: Replica):
        self._replica = replica

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        await self._replica.start()
        yield
        await self._replica.stop()

    def handle(self, endpoint: str, answer: Answer) -> Handler:
        """Read, answer, count: what the two POST endpoints share."""

        async def handler(request: Request) -> Response:
            started = time.perf_counter()
            version = "none"
            try:
                chosen = self._replica.choose(request.path_params.get("version"))
                version = chosen.version
                deadline = time.monotonic() + seconds_allowed(request, self._replica.longest_s)
                body = await read_body(request, self._replica.body_limit, deadline)
                response = await answer(request, chosen, body, deadline)
            except RequestError as error:
                response = error_response(error)
            except ClientDisconnect:
                response = Response(status_code=_CLIENT_LEFT)
            except Exception:
                log.exception("unforeseen error in %s", request.url.path)
                response = error_response(Internal("an internal error; the server's log has the cause"))
            self._replica.metrics.request(version, endpoint, response.status_code, time.perf_counter() - started)
            return response

        return handler

    async def predict(self, request: Request, version: LoadedVersion, body: bytes, deadline: float) -> Response:
        require_json(request)
        validated = validate(self._replica.task.Request, parse_json(body))
        return json_response(await self._replica.answer(version, validated, deadline, while_connected(request)))

    async def infer(self, request: Request, version: LoadedVersion, body: bytes, deadline: float) -> Response:
        header_length = request.headers.get(oip.HEADER_LENGTH)
        require_json(request, binary=header_length is not None)
        task = self._replica.task
        parsed = oip.parse_infer(task, body, header_length)
        validated = validate(task.Request, parsed.request)
        answer = await self._replica.answer(version, validated, deadline, while_connected(request))
        if parsed.id:
            answer["id"] = parsed.id
        content, headers = oip.write_infer(task, answer, parsed.wanted)
        return Response(content, headers=headers)

    async def metadata(self, request: Request) -> Response:
        pinned = request.path_params.get("version")
        return json_response(self._replica.metadata(self._replica.choose(pinned) if pinned else None))

    async def ready(self, request: Request) -> Response:
        version = self._replica.choose(request.path_params.get("version"))
        if not version.batcher.alive:
            raise NotReady(f"{self._replica.task.name} is not ready: its worker has died", retry_after=5)
        return json_response({"name": self._replica.task.name, "ready": True})


async def read_body(request: Request, limit: int, deadline: float) -> bytes:
    """The body. Raises BodyTooLarge as soon as it is known to exceed `limit` bytes, DeadlineExceeded if it stalls."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise BodyTooLarge(f"the body has {declared} bytes; at most {limit} are allowed", limit=limit)
    parts, size = [], 0
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise BodyTooLarge(f"the body has more than {limit} bytes, which is the most allowed", limit=limit)
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


@asynccontextmanager
async def while_connected(request: Request) -> AsyncIterator[None]:
    """Ends the block, with ClientDisconnect, when the client hangs up. The body must have been read before."""
    working = asyncio.current_task()
    assert working is not None
    inside = True

    def on_message(watched: asyncio.Future[Any]) -> None:
        if inside and not watched.cancelled():
            working.cancel()

    watching = asyncio.ensure_future(request.receive())
    watching.add_done_callback(on_message)
    try:
        yield
    except asyncio.CancelledError:
        if watching.done():
            working.uncancel()
            raise ClientDisconnect from None
        raise
    finally:
        inside = False
        watching.cancel()


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


def plain(handler: Handler) -> Handler:
    """Turns the errors of an uncounted endpoint into responses."""

    async def wrapped(request: Request) -> Response:
        try:
            return await handler(request)
        except RequestError as error:
            return error_response(error)
        except Exception:
            log.exception("unforeseen error in %s", request.url.path)
            return error_response(Internal("an internal error; the server's log has the cause"))

    return wrapped


def json_response(value: Mapping[str, Any], status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")


def error_response(error: RequestError) -> Response:
    """The contract's error: `{"error", "code", ...}`, with Retry-After where there is one."""
    response = json_response(error.body(), error.status)
    if error.retry_after is not None:
        response.headers["retry-after"] = str(error.retry_after)
    return response


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405 in the shape of the contract."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        response = error_response(MethodNotAllowed(f"{request.method} is not allowed here; use {allowed}"))
        response.headers["allow"] = allowed
        return response
    return error_response(NotFound(f"there is nothing at {request.url.path}"))


def mount_at_root(app: ASGIApp) -> ASGIApp:
    """Ray Serve names the route prefix as root_path; our routes carry the whole path, so drop it again."""

    async def at_root(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["root_path"] = ""
        await app(scope, receive, send)

    return at_root
