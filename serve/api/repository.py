"""The model repository extension of the Open Inference Protocol: lists versions, loads and unloads tasks.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
Releases decide which versions serve (operations.py); `load` and `unload` start and stop a task's application.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.releases.release import ReleaseError, local_versions, read_release
from models.tasks.base import Strict
from serve.api.operations import BASE, Operations
from serve.api.responses import json_response, plain
from serve.api.validation import parse_json, validate
from serve.config import Config
from serve.errors import NotReady
from serve.metrics import loaded_replicas

UNLOADED = "unloaded"
"""the state of a task whose application an operator has unloaded"""
RUNNING = "running"
_RETRY_AFTER_S = 5

RepositoryState = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
_STATES: dict[str, RepositoryState] = {
    RUNNING: "READY",
    "deploying": "LOADING",
    "not_started": "LOADING",
    "deleting": "UNLOADING",
}


class Applications(Protocol):
    """The tasks' applications on the cluster. Every method blocks; `load` and `unload` until they are complete."""

    def states(self) -> dict[str, str]:
        """State by task: `running`, `unloaded`, or the cluster's own name of another state, in lower case."""

    def load(self, task: str) -> None:
        """Start the task's application unless it runs, and wait until it answers. Raises RuntimeError if it fails."""

    def unload(self, task: str) -> None:
        """Drain the task's replicas, stop them, and wait until they are gone."""


class Index(Strict):
    ready: bool = Field(False, description="list only versions that are serving")


class Load(Strict):
    parameters: dict[str, Any] = Field({}, max_length=0, description="must be empty: a release decides what is loaded")


class Unload(Strict):
    parameters: dict[Literal["unload_dependents"], bool] = Field({}, description="accepted, without effect")


class Repository:
    """The extension's three endpoints."""

    def __init__(self, config: Config, operations: Operations, applications: Applications):
        self._config = config
        self._operations = operations
        self._applications = applications
        self._lock = asyncio.Lock()  # one load or unload at a time

    def routes(self) -> list[Route]:
        return [
            Route("/v2/repository/index", plain(self.index), methods=["POST"]),
            Route(f"{BASE}/{{task}}/load", plain(self.load), methods=["POST"]),
            Route(f"{BASE}/{{task}}/unload", plain(self.unload), methods=["POST"]),
        ]

    async def index(self, request: Request) -> Response:
        """Every local version: name, version, state, and the reason when it does not serve. Read-only."""
        body = await self._operations.read(request)
        options = validate(Index, parse_json(body) if body.strip() else {})
        rows = await asyncio.to_thread(lambda: list(self._rows(self._applications.states(), loaded_replicas())))
        return json_response([row for row in rows if row["state"] == "READY" or not options.ready])

    async def load(self, request: Request) -> Response:
        await self._operations.parse_change(request, Load)
        task = self._operations.task(request)
        async with self._lock:
            try:
                await asyncio.to_thread(self._applications.load, task)
            except RuntimeError as error:
                raise NotReady(f"{task} could not be loaded: {error}", retry_after=_RETRY_AFTER_S) from error
        return json_response({})

    async def unload(self, request: Request) -> Response:
        await self._operations.parse_change(request, Unload)
        async with self._lock:
            await asyncio.to_thread(self._applications.unload, self._operations.task(request))
        return json_response({})

    def _rows(self, states: dict[str, str], loaded: Mapping[tuple[str, str], float]) -> Iterator[dict[str, str]]:
        """`loaded`: number of replicas on this machine with (task, version) in memory."""
        for task in self._config.tasks:
            try:
                release = read_release(self._config.home, task)
            except ReleaseError as error:
                release, broken = None, str(error)
            for version in local_versions(self._config.home, task):
                state, reason = _STATES.get(states[task], "UNAVAILABLE"), f"the task is {states[task]}"
                if release is None:
                    state, reason = "UNAVAILABLE", broken
                elif version not in release.versions:
                    state, reason = "UNAVAILABLE", "it is neither champion nor challenger"
                elif state == "READY":
                    reason = ""
                    if loaded.get((task, release.champion)) and not loaded.get((task, version)):
                        state, reason = "UNAVAILABLE", "no replica has loaded it; the replicas' log says why"
                yield {"name": task, "version": version, "state": state, "reason": reason}
