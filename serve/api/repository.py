"""The model repository extension of the Open Inference Protocol: lists versions, loads and unloads tasks.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
Releases decide which versions serve (operations.py); `load` and `unload` start and stop a task's application.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol, TypeVar

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.releases.release import ReleaseError, local_versions, read_release
from models.tasks.base import Strict
from serve.api.operations import BASE, Move, Operations
from serve.api.responses import json_response, plain
from serve.api.validation import parse_json, validate
from serve.config import Config
from serve.errors import NotReady
from serve.metrics import loaded_replicas

T = TypeVar("T")
UNLOADED = "unloaded"
"""the state of a task whose application an operator has unloaded"""
RUNNING, DELETING = "running", "deleting"
_RETRY_AFTER_S = 5

RepositoryState = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
_STATES: dict[str, RepositoryState] = {
    RUNNING: "READY",
    "deploying": "LOADING",
    "not_started": "LOADING",
    DELETING: "UNLOADING",
}


class ApplicationsError(Exception):
    """Raised when the cluster does not answer, or did not do what it was asked; the text says why."""


class Applications(Protocol):
    """The tasks' applications on the cluster. Every method blocks and may raise ApplicationsError."""

    def states(self) -> dict[str, str]:
        """State by task: `running`, `unloaded`, or the cluster's own name of another state, in lower case."""

    def load(self, task: str) -> None:
        """Start the task's application unless it runs or starts, and wait until it answers, for a minute at most."""

    def unload(self, task: str) -> None:
        """Drain the task's replicas, stop them, and wait until they are gone."""


class Index(Strict):
    ready: bool = Field(False, description="list only versions that are serving")


class Load(Move):
    parameters: dict[str, Any] = Field({}, max_length=0, description="must be empty: a release decides what is loaded")


class Unload(Move):
    parameters: dict[Literal["unload_dependents"], bool] = Field({}, description="accepted, without effect")


class Repository:
    """The extension's three endpoints."""

    def __init__(self, config: Config, operations: Operations, applications: Applications):
        self._config = config
        self._operations = operations
        self._applications = applications
        # Apart from the threads in which versions are moved: those must be free when Ray Serve does not answer.
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="applications")

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
        states = await self._ask(self._applications.states)
        rows = await asyncio.to_thread(lambda: list(self._rows(states, loaded_replicas())))
        return json_response([row for row in rows if row["state"] == "READY" or not options.ready])

    async def load(self, request: Request) -> Response:
        change, task = await self._operations.parse_change(request, Load), self._operations.task(request)
        await self._operations.record(task, "load", change)
        await self._ask(lambda: self._applications.load(task))
        return json_response({})

    async def unload(self, request: Request) -> Response:
        change, task = await self._operations.parse_change(request, Unload), self._operations.task(request)
        await self._operations.record(task, "unload", change)
        await self._ask(lambda: self._applications.unload(task))
        return json_response({})

    async def _ask(self, ask: Callable[[], T]) -> T:
        """Return `ask()`, run in a thread of its own pool. Raises NotReady when the cluster did not do it."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, ask)
        except ApplicationsError as error:
            raise NotReady(f"Ray Serve: {error}", retry_after=_RETRY_AFTER_S) from error

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
