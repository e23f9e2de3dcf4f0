"""The control application, at `/`: health, metadata, metrics, operators' endpoints, OpenAPI, and unknown paths."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from export.machine import flywheel_version
from models.feedback.store import Store
from models.training.progress import read_training
from serve.api.discovery import Discover, Discovery
from serve.api.knowledge import KnowledgeApi
from serve.api.openapi import openapi
from serve.api.operations import BASE, Operations
from serve.api.opinion import Opinion
from serve.api.repository import DELETING, RUNNING, UNLOADED, Applications, ApplicationsError, Repository
from serve.api.request_ids import with_request_ids
from serve.api.responses import json_response, mount_at_root, moved_endpoint, on_http_exception, plain
from serve.api.review import Review
from serve.config import Config
from serve.errors import NotFound, NotReady
from serve.metrics import exposition

Tuning = Callable[[], dict[str, Any]]
"""Returns the tuning mode and, for each platform tweak, whether it is in effect. Blocks."""

_STATES_AGE_S = 1.0
_STATES_TIMEOUT_S = 5.0


def build_control(
    config: Config, store: Store, applications: Applications, discover: Discover, tuning: Tuning = dict,
    *, returns_id: bool = True,
) -> ASGIApp:  # fmt: skip
    """The application. It caches the applications' states for a second, so that probes do not load the cluster."""
    control = _Control(config, applications, tuning)
    operations = Operations(config, store)
    app = Starlette(
        routes=[
            Route("/v2/health/live", plain(control.live)),
            Route("/v2/health/ready", plain(control.ready)),
            Route("/v2", plain(control.metadata)),
            Route("/metrics", plain(control.metrics)),
            Route("/openapi.json", plain(control.openapi)),
            Route("/docs", plain(control.docs)),
            Route("/docs/{asset}", plain(control.asset)),
            *Repository(config, operations, applications).routes(),
            *operations.routes(),
            *Opinion(config, store, config.opinion_topics).routes(),
            *KnowledgeApi(config, store).routes(),
            *Review(config, store).routes(),
            *Discovery(config, store, discover).routes(),
            Route("/v2/models/{rest:path}", plain(control.unknown_model), methods=["GET", "POST", "PUT", "DELETE"]),
        ],
        exception_handlers={HTTPException: on_http_exception},
    )
    app.router.redirect_slashes = False
    return with_request_ids(mount_at_root(app), app.routes, returns_id=returns_id)


class _Control:
    def __init__(self, config: Config, applications: Applications, tuning: Tuning):
        self._tasks = list(config.tasks)
        self._monitors_opinion = config.opinion.task in config.tasks
        self._home = config.home
        self._applications = applications
        self._tuning = tuning
        self._states: asyncio.Future[dict[str, str]] | None = None
        self._states_at = -math.inf
        # One thread, so that a cluster that does not answer takes none of those that move versions.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="states")
        # Another, so that operators' requests that wait for a disk do not hide what is wrong.
        self._observers = ThreadPoolExecutor(1, thread_name_prefix="metrics")

    async def live(self, request: Request) -> Response:
        return json_response({"live": True})

    async def ready(self, request: Request) -> Response:
        """200 when every task is running, or was unloaded by an operator, else 503."""
        states = await self._task_states()
        waiting = {task: state for task, state in states.items() if state not in (RUNNING, UNLOADED, DELETING)}
        if waiting:
            sentence = ", ".join(f"{task} is {state}" for task, state in waiting.items())
            raise NotReady(f"not ready: {sentence}", retry_after=2, models=waiting, ready=False)
        return json_response({"ready": True})

    async def _task_states(self) -> dict[str, str]:
        """The states of at most a second ago. Raises NotReady when the cluster does not tell."""
        asked = self._states
        if asked is None or (asked.done() and time.monotonic() - self._states_at > _STATES_AGE_S):
            self._states_at = time.monotonic()
            asked = self._states = asyncio.get_running_loop().run_in_executor(self._pool, self._applications.states)
        try:
            return await asyncio.wait_for(asyncio.shield(asked), _STATES_TIMEOUT_S)
        except (ApplicationsError, TimeoutError) as error:
            raise NotReady(f"Ray Serve does not answer: {error}", retry_after=2, ready=False) from error

    async def metadata(self, request: Request) -> Response:
        observe = asyncio.get_running_loop().run_in_executor
        return json_response(
            {
                "name": "flywheel",
                "version": flywheel_version(),
                "extensions": ["binary_tensor_data", "model_repository"],
                "models": self._tasks,
                "tuning": await observe(self._observers, self._tuning),
                "training": await observe(self._observers, self._trainings),
            }
        )

    def _trainings(self) -> dict[str, Any]:
        """By task: the progress of the training beside a first version, or how it ended."""
        found = {task: read_training(self._home, task) for task in self._tasks}
        return {task: progress for task, progress in found.items() if progress is not None}

    async def metrics(self, request: Request) -> Response:
        loop, accept = asyncio.get_running_loop(), request.headers.get("accept", "")
        text, content_type = await loop.run_in_executor(self._observers, exposition, accept)
        return Response(text, headers={"content-type": content_type})

    async def openapi(self, request: Request) -> Response:
        return json_response(openapi(self._tasks, flywheel_version(), opinion=self._monitors_opinion))

    async def docs(self, request: Request) -> Response:
        return HTMLResponse(_DOCS_PAGE)

    async def asset(self, request: Request) -> Response:
        """A file of Swagger UI, from the installed package, so that the page works offline."""
        media_type = _DOCS_ASSETS.get(request.path_params["asset"])
        if media_type is None:
            raise NotFound(f"there is nothing at {request.url.path}")
        folder = files("swagger_ui_bundle") / "vendor"
        found = next(f for f in folder.iterdir() if f.is_dir()) / request.path_params["asset"]
        return Response(found.read_bytes(), media_type=media_type)

    async def unknown_model(self, request: Request) -> Response:
        name = request.path_params["rest"].partition("/")[0]
        if name in self._tasks:
            # HAProxy routes requests of a served task here only while the task has no replica.
            if (moved := moved_endpoint(name, request.url.path)) is not None:
                raise moved
            if (await self._task_states()).get(name) == UNLOADED:
                raise NotReady(f"{name} is unloaded; load it with POST {BASE}/{name}/load", retry_after=10)
            raise NotReady(f"{name} is starting or draining", retry_after=2)
        raise NotFound(f"there is no model {name!r}; there are: {', '.join(self._tasks)}", models=self._tasks)


_DOCS_ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
_DOCS_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Flywheel API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css"></head>
<body><div id="ui"></div><script src="/docs/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "/openapi.json", dom_id: "#ui", tryItOutEnabled: true})</script></body></html>
"""
