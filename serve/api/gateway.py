"""The ASGI application of one task: everything that concerns HTTP, and nothing else. Runs under any ASGI server.

A predict request: `request` reads the body, `validation` checks it, `routing` picks the version, `replica` answers.
A correction: `intake` checks it, `writer` stores it; only then is it confirmed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from models.users import UserName, user_of_header
from serve import tracing
from serve.api import oip
from serve.api.connection import received_at, watch_disconnect
from serve.api.request import read_body, refused_by_proxy, requested_timeout_s, require_json
from serve.api.request_ids import with_request_ids
from serve.api.responses import (
    MOVED_ENDPOINTS,
    Handler,
    error_response,
    json_response,
    mount_at_root,
    moved_endpoint,
    on_http_exception,
    plain,
    unforeseen,
)
from serve.api.validation import parse_json, validate
from serve.browser_guard import accepted_hosts, refuse_pages
from serve.engine.loaded_model import LoadedVersion
from serve.engine.replica import Replica
from serve.errors import (
    InvalidRequest,
    NotFound,
    NotReady,
    RequestError,
)
from serve.feedback.intake import Feedback, FeedbackBatch, FeedbackService
from serve.metrics.metric import NO_VERSION
from serve.request_context import note_version
from serve.tracing.export import stop as stop_tracing

_USER = "x-user-id"  # assigns a user to one version during a canary; stored as a keyed hash
_FLUSH_TRACES_S = 1.0  # for what is still queued when the replica ends
Endpoint = Callable[["Call", bytes], Awaitable[Response]]


def build_gateway(replica: Replica, *, returns_id: bool = True) -> ASGIApp:
    """The application for `replica`, at the full paths of the HTTP contract. `returns_id`: that of with_request_ids."""
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
            *(Route(f"{base}/{name}", plain(gateway.moved), methods=["GET", "POST"]) for name in MOVED_ENDPOINTS),
            Route(base, plain(gateway.metadata), methods=["GET"]),
            Route(version, plain(gateway.metadata), methods=["GET"]),
            Route(f"{base}/ready", plain(gateway.ready), methods=["GET"]),
            Route(f"{version}/ready", plain(gateway.ready), methods=["GET"]),
        ],
        exception_handlers={HTTPException: on_http_exception},
        lifespan=gateway.lifespan,
    )
    app.router.redirect_slashes = False
    # The endpoints under load bypass Starlette's router and its two layers of middleware, which take a fifth of the
    # time a request spends in Python.
    hot_handlers = {
        f"{base}/predict": gateway.handle("predict", gateway.predict),
        f"{base}/infer": gateway.handle("infer", gateway.infer),
    }

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        handler = hot_handlers.get(scope.get("path", ""))
        if handler is None or scope["method"] != "POST":
            await rest(scope, receive, send)
        else:
            response = await handler(Request(scope, receive))
            await response(scope, receive, send)

    rest = mount_at_root(app)
    return with_request_ids(dispatch, app.routes, replica.task.name, returns_id=returns_id)


@dataclass(slots=True)
class Call:
    """A POST in progress: its user, its deadline (time.monotonic) and the version that answers it."""

    request: Request
    version: LoadedVersion
    deadline: float
    pinned: str | None
    user: UserName | None


class _Gateway:
    def __init__(self, replica: Replica):
        self._replica = replica
        settings, server = replica.config.feedback, replica.config.server
        self._hosts = accepted_hosts(server.host, server.hosts)
        self._feedback_service = FeedbackService(
            replica.task,
            replica.prediction_logger,
            new_labels=replica.config.tasks[replica.task.name].new_labels,
            keep_days=settings.log.keep_days,
            max_items=settings.items,
        )

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        await self._replica.start()
        yield
        await self._replica.stop()
        if tracing.is_on():
            await asyncio.to_thread(stop_tracing, _FLUSH_TRACES_S)

    def handle(self, endpoint: str, answer: Endpoint) -> Handler:
        """A handler that picks a version, reads the body, calls `answer`, and records metrics and errors."""

        async def handler(request: Request) -> Response:
            started = received_at(request)
            call = None
            try:
                self._replica.observe_lag(time.monotonic() - started)
                pinned, user = request.path_params.get("version"), user_of_header(request.headers.get(_USER))
                chosen = self._replica.choose(pinned, user)
                note_version(chosen.version)
                deadline = started + requested_timeout_s(request, self._replica.max_seconds)
                call = Call(request, chosen, deadline, pinned, user)
                body = await read_body(request, self._replica.body_limit, deadline)
                response = await answer(call, body)
            except RequestError as error:
                response = error_response(error)
            except Exception as error:
                response = unforeseen(request, error)
            version, seconds = call.version.version if call else NO_VERSION, time.monotonic() - started
            count = self._replica.metrics.request
            self._replica.after_response(count, version, endpoint, response.status_code, seconds)
            if (refused := refused_by_proxy(request)) is not None:
                self._replica.after_response(self._replica.metrics.refused, *refused)
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
        content, headers = oip.write_infer(task, answer, parsed.wanted, parsed.id)
        return Response(content, headers=headers)

    async def _answer(self, call: Call, value: Any) -> dict[str, Any]:
        request = validate(self._replica.task.Request, value)
        if call.user is None:
            call.user = call.version.task.user(request)
        # Choose again: while a slow body arrived, a new release may have retired the version chosen before.
        call.version = self._replica.choose(call.pinned, call.user)
        note_version(call.version.version)
        with watch_disconnect(call.request) as disconnected:
            return await self._replica.answer(call.version, request, call.deadline, disconnected, call.user)

    async def feedback(self, call: Call, body: bytes) -> Response:
        """Store one correction, or `{"feedback": [...]}` with a result for each; 202 once they are durable."""
        refuse_pages(call.request.headers, self._hosts)
        require_json(call.request)
        value = parse_json(body)
        labels = call.version.task.labels
        if isinstance(value, dict) and "feedback" in value:
            return await self._feedback_batch(validate(FeedbackBatch, value).feedback, labels, call.user)
        result = await self._feedback_service.accept_one(validate(Feedback, value), labels, call.user)
        self._replica.metrics.feedback(result["status"])
        return json_response(result, 202)

    async def _feedback_batch(self, values: list[Any], labels: Sequence[str], sender: UserName | None) -> Response:
        self._feedback_service.check_count(len(values))
        results = await self._feedback_service.accept([_valid_or_error(value) for value in values], labels, sender)
        for result in results:
            self._replica.metrics.feedback(result.get("status") or result["code"])
        refused = [result for result in results if "status" not in result]
        if len(refused) == len(results):
            first = refused[0]["error"]
            raise InvalidRequest(
                f"feedback: none of the items was accepted; the first: {first}",
                taken=0,
                refused=len(refused),
                results=results,
            )
        return json_response({"taken": len(results) - len(refused), "refused": len(refused), "results": results}, 202)

    async def feedback_counts(self, request: Request) -> Response:
        return json_response(await self._feedback_service.counts())

    async def moved(self, request: Request) -> Response:
        error = moved_endpoint(self._replica.task.name, request.url.path)
        raise error or NotFound(f"there is nothing at {request.url.path}")

    async def metadata(self, request: Request) -> Response:
        pinned = request.path_params.get("version")
        return json_response(self._replica.metadata(self._replica.choose(pinned) if pinned else None))

    async def ready(self, request: Request) -> Response:
        version = self._replica.choose(request.path_params.get("version"))
        if not version.batcher.alive:
            raise NotReady(f"{self._replica.task.name} is not ready: its worker has died", retry_after=5)
        return json_response({"name": self._replica.task.name, "ready": True})


def _valid_or_error(value: Any) -> Feedback | InvalidRequest:
    try:
        return validate(Feedback, value)
    except InvalidRequest as error:
        return error
