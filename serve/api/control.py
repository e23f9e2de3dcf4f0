"""The control application, at `/`: health, server metadata, metrics, the API's description, and every 404."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from serve.api.openapi import openapi
from serve.api.responses import json_response, mount_at_root, on_http_exception, plain
from serve.errors import NotFound, NotReady
from serve.metrics import exposition

Status = Callable[[], dict[str, str]]
"""Blocking; what is not ready: task -> its state. Empty when everything is."""

Tuning = Callable[[], dict[str, Any]]
"""Blocking; the mode, and for each tweak of the platform whether it took."""

_STATUS_AGE_S = 1.0


def server_version() -> str:
    try:
        return version("flywheel-serve")
    except PackageNotFoundError:
        return "0+unknown"


def build_control(tasks: Sequence[str], not_ready: Status, tuning: Tuning = dict) -> ASGIApp:
    """The application. `not_ready` is asked at most once a second, however often probes come."""
    control = _Control(tasks, not_ready, tuning)
    app = Starlette(
        routes=[
            Route("/v2/health/live", plain(control.live)),
            Route("/v2/health/ready", plain(control.ready)),
            Route("/v2", plain(control.metadata)),
            Route("/metrics", plain(control.metrics)),
            Route("/openapi.json", plain(control.openapi)),
            Route("/docs", plain(control.docs)),
            Route("/docs/{asset}", plain(control.asset)),
            Route("/v2/models/{rest:path}", plain(control.unknown_model), methods=["GET", "POST", "PUT", "DELETE"]),
        ],
        exception_handlers={HTTPException: on_http_exception},
    )
    app.router.redirect_slashes = False
    return mount_at_root(app)


class _Control:
    def __init__(self, tasks: Sequence[str], not_ready: Status, tuning: Tuning):
        self._tasks = list(tasks)
        self._tuning = tuning
        self._ask = not_ready
        self._state: dict[str, str] = {}
        self._asked = 0.0

    async def live(self, request: Request) -> Response:
        return json_response({"live": True})

    async def ready(self, request: Request) -> Response:
        if time.monotonic() - self._asked > _STATUS_AGE_S:
            self._asked = time.monotonic()
            self._state = await asyncio.to_thread(self._ask)
        if self._state:
            waiting = ", ".join(f"{task} is {state}" for task, state in self._state.items())
            raise NotReady(f"not ready: {waiting}", retry_after=2, models=self._state, ready=False)
        return json_response({"ready": True})

    async def metadata(self, request: Request) -> Response:
        return json_response(
            {
                "name": "flywheel",
                "version": server_version(),
                "extensions": ["binary_tensor_data"],
                "models": self._tasks,
                "tuning": await asyncio.to_thread(self._tuning),
            }
        )

    async def metrics(self, request: Request) -> Response:
        text, content_type = await asyncio.to_thread(exposition)
        return Response(text, media_type=content_type)

    async def openapi(self, request: Request) -> Response:
        return json_response(openapi(self._tasks, server_version()))

    async def docs(self, request: Request) -> Response:
        return HTMLResponse(_DOCS_PAGE)

    async def asset(self, request: Request) -> Response:
        """Swagger UI's own files, from its package: the page works without a network."""
        media_type = _DOCS_ASSETS.get(request.path_params["asset"])
        if media_type is None:
            raise NotFound(f"there is nothing at {request.url.path}")
        folder = files("swagger_ui_bundle") / "vendor"
        found = next(f for f in folder.iterdir() if f.is_dir()) / request.path_params["asset"]
        return Response(found.read_bytes(), media_type=media_type)

    async def unknown_model(self, request: Request) -> Response:
        name = request.path_params["rest"].partition("/")[0]
        if name in self._tasks:
            # HAProxy sends a served task's requests here only while it has no replica: at the start and in a drain.
            raise NotReady(f"{name} is starting or draining", retry_after=2)
        raise NotFound(f"there is no model {name!r}; there are: {', '.join(self._tasks)}", models=self._tasks)


_DOCS_ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
_DOCS_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Flywheel API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css"></head>
<body><div id="ui"></div><script src="/docs/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "/openapi.json", dom_id: "#ui", tryItOutEnabled: true})</script></body></html>
"""
