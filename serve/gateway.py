"""The ASGI application of one task: HTTP in, HTTP out, and nothing but HTTP. Runs under any ASGI server.

A predict request: `predict` reads the body, `schemas` checks it, `routing` picks the version, `replica` answers.
A correction: `feedback` checks it, `recorder` stores it, and only then it is confirmed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
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
    NotReady,
    RequestError,
    UnsupportedMediaType,
)
from serve.feedback import Feedback, FeedbackBatch, FeedbackDesk
from serve.operators import operator_routes
from serve.replica import Replica
from serve.responses import Handler, error_response, json_response, on_http_exception, plain
from serve.schemas import parse_json, validate
from serve.version import LoadedVersion

log = logging.getLogger("flywheel.gateway")

_CLIENT_LEFT = 499  # nginx's number; nobody is there to read it, but the metrics are
_TIMEOUT = "x-request-timeout-seconds"  # the name Ray Serve gave it
_USER = "x-user-id"  # keeps a user with one version of a canary; stored as a keyed hash
Answer = Callable[["Call", bytes], Awaitable[Response]]


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
            Route(f"{base}/feedback", gateway.handle("feedback", gateway.feedback), methods=["POST"]),
            Route(f"{base}/feedback", plain(gateway.feedback_counts), methods=["GET"]),
            *operator_routes(replica, base),
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


@dataclass(slots=True)
class Call:
    """One POST on its way: who asks, until when, and which version answers."""

    request: Request
    version: LoadedVersion
    deadline: float
    pinned: str | None
    user: str | None


class _Gateway:
    def __init__(self, replica: Replica):
        self._replica = replica
        settings = replica.config.feedback
        self._desk = FeedbackDesk(
            replica.task,
            replica.recorder,
            new_labels=replica.config.tasks[replica.task.name].new_labels,
            keep_days=settings.log.keep_days,
            most=settings.items,
        )

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        await self._replica.start()
        yield
        await self._replica.stop()

    def handle(self, endpoint: str, answer: Answer) -> Handler:
        """Read, answer, count: what the two POST endpoints share."""

        async def handler(request: Request) -> Response:
            started = time.perf_counter()
            call = None
            try:
                pinned, user = request.path_params.get("version"), request.headers.get(_USER)
                chosen = self._replica.choose(pinned, user)
                deadline = time.monotonic() + seconds_allowed(request, self._replica.longest_s)
                call = Call(request, chosen, deadline, pinned, user)
                body = await read_body(request, self._replica.body_limit, deadline)
                response = await answer(call, body)
            except RequestError as error:
                response = error_response(error)
            except ClientDisconnect:
                response = Response(status_code=_CLIENT_LEFT)
            except Exception:
                log.exception("unforeseen error in %s", request.url.path)
                response = error_response(Internal("an internal error; the server's log has the cause"))
            version = call.version.version if call else "none"
            self._replica.metrics.request(version, endpoint, response.status_code, time.perf_counter() - started)
            return response

        return handler

    async def predict(self, call: Call, body: bytes) -> Response:
        require_json(call.request)
        return json_response(await self._answer(call, parse_json(body)))

    async def infer(self, call: Call, body: bytes) -> Response:
        header_length = call.request.headers.get(oip.HEADER_LENGTH)
        require_json(call.request, binary=header_length is not None)
        task = self._replica.task
        parsed = oip.parse_infer(task, body, header_length)
        answer = await self._answer(call, parsed.request)
        if parsed.id:
            answer["id"] = parsed.id
        content, headers = oip.write_infer(task, answer, parsed.wanted)
        return Response(content, headers=headers)

    async def _answer(self, call: Call, value: Any) -> dict[str, Any]:
        request = validate(self._replica.task.Request, value)
        if call.user is None and (user := call.version.task.user(request)) is not None:
            call.user = user
            call.version = self._replica.choose(call.pinned, user)
        watched = while_connected(call.request)
        return await self._replica.answer(call.version, request, call.deadline, watched, call.user)

    async def feedback(self, call: Call, body: bytes) -> Response:
        """202 once it is durable: one correction, or `{"feedback": [...]}` with a result for each."""
        require_json(call.request)
        value = parse_json(body)
        labels = call.version.task.labels
        if isinstance(value, dict) and "feedback" in value:
            results = await self._desk.take(validate(FeedbackBatch, value).feedback, labels)
        else:
            results = [await self._desk.take_one(validate(Feedback, value), labels)]
        for result in results:
            self._replica.metrics.feedback(result.get("status") or result["code"])
        taken = sum("status" in result for result in results)
        if isinstance(value, dict) and "feedback" not in value:
            return json_response(results[0], 202)
        if not taken:
            raise InvalidRequest("feedback: not one of the items could be taken", results=results)
        return json_response({"taken": taken, "results": results}, 202)

    async def feedback_counts(self, request: Request) -> Response:
        return json_response(await self._desk.counts())

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


def mount_at_root(app: ASGIApp) -> ASGIApp:
    """Ray Serve names the route prefix as root_path; our routes carry the whole path, so drop it again."""

    async def at_root(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["root_path"] = ""
        await app(scope, receive, send)

    return at_root
