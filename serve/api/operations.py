"""Operators' endpoints of a task, below /v2/repository/models/{task}: move versions, retrain, erase, and inspect.

The control application answers them from the release file and the store, so they work while no replica is alive. Every
change goes into the audit log.
"""

from __future__ import annotations

import asyncio
import contextvars
import hmac
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, Field, StringConstraints, field_validator
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from export.bundle import read_manifest
from export.errors import BundleError
from models.feedback.pseudonyms import UserHasher
from models.feedback.store import Store, StoreError
from models.home import bundle_folder
from models.releases import audit_outbox
from models.releases.gate_reports import read_gate_report
from models.releases.release import Mode, Release, ReleaseError, local_versions, read_release
from models.releases.rollout import Rollout
from models.retraining.plan import lock_of, not_yet
from models.tasks.base import Strict
from models.training.progress import read_progress
from models.users import require_user
from serve import tracing
from serve.api.request import read_body
from serve.api.responses import json_response, plain
from serve.api.validation import Model, parse_json, validate
from serve.browser_guard import accepted_hosts, is_loopback, refuse_foreign_host, refuse_pages
from serve.config import Config, ServerConfig
from serve.errors import Conflict, Forbidden, NotFound, NotReady

BASE = "/v2/repository/models"
log = logging.getLogger("flywheel.operations")

_RETRY_AFTER_S = 5
_TIMEOUT_S = 20.0  # for a disk or database that neither answers nor fails
_ERASE_TIMEOUT_S = 600.0  # rewrites the whole SQLite file
_MAX_REQUESTS = 20  # retraining requests listed per task, newest first
_AUDIT_FIELDS = ("at", "action", "version", "actor", "reason", "detail")

_Line = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=500)]
T = TypeVar("T")


class Move(Strict):
    """The actor of a change and its reason; both go into the audit log."""

    actor: _Line = Field("an operator, over HTTP", validation_alias=AliasChoices("actor", "who"))
    reason: _Line = Field("no reason given", validation_alias=AliasChoices("reason", "why"))


class Promotion(Move):
    version: str | None = Field(None, description="default: the challenger")


class Rollback(Move):
    version: str | None = Field(
        None,
        description="the version to take out, so that a repeated request is refused; default: the challenger, else the "
        "champion",
    )


class Challenge(Move):
    version: str
    mode: Mode
    share: float = Field(0.1, gt=0, lt=1, description="fraction of the users that a canary answers")


class ErasureRequest(Move):
    user: Annotated[str, StringConstraints(strict=True)] = Field(description="as clients name the user, in any form")

    @field_validator("user")
    @classmethod
    def _user_not_blank(cls, user: str) -> str:
        require_user(user)
        return user


class Operations:
    """The operators' endpoints of all tasks. Moves of versions work while `store` is unreachable."""

    def __init__(self, config: Config, store: Store):
        self._config = config
        self._home = config.home
        self._store = store
        self._hosts = accepted_hosts(config.server.host, config.server.hosts)
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="operations")

    def routes(self) -> list[Route]:
        base = f"{BASE}/{{task}}"
        return [
            Route(f"{base}/promote", plain(self.promote), methods=["POST"]),
            Route(f"{base}/challenge", plain(self.challenge), methods=["POST"]),
            Route(f"{base}/rollback", plain(self.rollback), methods=["POST"]),
            Route(f"{base}/retrain", plain(self.retrain), methods=["POST"]),
            Route(f"{base}/retrain", plain(self.retraining), methods=["GET"]),
            Route(f"{base}/erase", plain(self.erase), methods=["POST"]),
            Route(f"{base}/audit", plain(self.audit), methods=["GET"]),
            Route(f"{base}/versions", plain(self.versions), methods=["GET"]),
            Route(f"{base}/gate/{{version}}", plain(self.gate), methods=["GET"]),
        ]

    async def promote(self, request: Request) -> Response:
        change = await self.parse_change(request, Promotion)
        return await self._move(request, change, lambda rollout: rollout.promote(change.version, change.reason))

    async def challenge(self, request: Request) -> Response:
        change = await self.parse_change(request, Challenge)
        return await self._move(
            request, change, lambda rollout: rollout.challenge(change.version, change.mode, change.share, change.reason)
        )

    async def rollback(self, request: Request) -> Response:
        change = await self.parse_change(request, Rollback)
        return await self._move(request, change, lambda rollout: rollout.rollback(change.reason, change.version))

    async def retrain(self, request: Request) -> Response:
        """202: the controller starts a run within seconds; GET returns its progress and the request's outcome."""
        change, task = await self.parse_change(request, Move), self.task(request)
        id_ = await self._query(lambda store: store.retraining.request(task, change.actor, change.reason))
        return json_response({"status": "requested", "request": id_}, 202)

    async def retraining(self, request: Request) -> Response:
        self.authorize(request)
        task = self.task(request)
        running, requests = await self._query(
            lambda store: (store.locks.is_held(lock_of(task)), store.retraining.latest(task, _MAX_REQUESTS))
        )
        progress = await self._within(_TIMEOUT_S, partial(_progress, self._home, task, running=running))
        return json_response({**progress, "requests": [asdict(entry) for entry in requests]})

    async def erase(self, request: Request) -> Response:
        """Erase a user in all tasks. Predictions still in a replica's buffer are refused by the store later."""
        change = await self.parse_change(request, ErasureRequest)
        settings = self._config.feedback
        secret = settings.secret.get_secret_value() if settings.secret else None
        hasher = await self._within(_TIMEOUT_S, UserHasher.open, self._home, secret)
        hashes = hasher.all_hashes(require_user(change.user), change.user)
        erased = await self._query(
            lambda store: store.privacy.erase(*hashes, actor=change.actor, reason=change.reason), _ERASE_TIMEOUT_S
        )
        return json_response(
            {
                "predictions": erased.predictions,
                "feedback": erased.feedback,
                "documents": erased.documents,
                "learned_by": erased.versions,
            }
        )

    async def audit(self, request: Request) -> Response:
        self.authorize(request)
        task = self.task(request)
        entries = await self._query(lambda store: store.audit.entries(task))
        return json_response({"audit": [{name: getattr(entry, name) for name in _AUDIT_FIELDS} for entry in entries]})

    async def versions(self, request: Request) -> Response:
        """The local versions, newest first, with fields of their manifests."""
        self.authorize(request)
        task = self.task(request)
        return json_response({"versions": await self._within(_TIMEOUT_S, _versions, self._config, task)})

    async def gate(self, request: Request) -> Response:
        """The gate's report on a version."""
        self.authorize(request)
        task, version = self.task(request), request.path_params["version"]
        report = await self._within(_TIMEOUT_S, read_gate_report, self._home, task, version)
        if report is None:
            raise NotFound(
                f"there is no gate report of {task} version {version!r}: it is unknown, or not from a retraining"
            )
        return json_response(report)

    def task(self, request: Request) -> str:
        """The task in the path. Raises NotFound for one that is not served."""
        task: str = request.path_params["task"]
        if task not in self._config.tasks:
            served = ", ".join(self._config.tasks)
            raise NotFound(f"there is no model {task!r}; there are: {served}", models=list(self._config.tasks))
        return task

    def authorize(self, request: Request) -> None:
        """Raises Forbidden, as the module's `authorize` does."""
        authorize(request, self._config.server)

    async def parse_change(self, request: Request, model: type[Model]) -> Model:
        """Authorize and parse a request that changes something; every such request passes through here.

        Raises as `refuse_pages`, `authorize`, `task`, `read_body` and `validate` do.
        """
        refuse_pages(request.headers, self._hosts)
        self.authorize(request)
        self.task(request)
        body = await self.read(request)
        return validate(model, parse_json(body) if body.strip() else {})

    async def read(self, request: Request) -> bytes:
        """The body, within the limits of predict. Raises as `read_body` does."""
        limits = self._config.limits
        return await read_body(request, limits.body_bytes, time.monotonic() + limits.deadline_s)

    async def record(self, task: str, action: str, change: Move) -> None:
        """Add `change` to the audit log; while the store is away, to what is written there later."""

        def write() -> None:
            entry = self._store.audit.entry(task, action, None, change.actor, change.reason)
            audit_outbox.append(self._home, entry)
            audit_outbox.flush(self._home, task, self._store)

        try:
            await self._within(_TIMEOUT_S, write)
        except (StoreError, NotReady):
            pass
        except OSError as error:  # it has been done, and is not undone for want of its entry
            log.error("%s: this %s is not in the audit log: %s", task, action, error.strerror)

    async def _within(self, timeout_s: float, do: Callable[..., T], *arguments: Any) -> T:
        """Return `do(*arguments)`, run in a thread. Raises NotReady when a disk or database does not answer in time."""
        run = contextvars.copy_context().run  # with the request, which the log names
        doing = asyncio.get_running_loop().run_in_executor(self._threads, run, do, *arguments)
        try:
            return await asyncio.wait_for(doing, timeout_s)
        except TimeoutError:
            sentence = (
                f"the disk or the database has not answered for {timeout_s:g} s; what was asked may still be done"
            )
            raise NotReady(sentence, retry_after=_RETRY_AFTER_S) from None

    async def _query(self, query: Callable[[Store], T], timeout_s: float = _TIMEOUT_S) -> T:
        """Return `query(store)`, run in a thread. Raises NotReady when the store is unavailable or does not answer."""
        try:
            with tracing.span("store"):
                return await self._within(timeout_s, query, self._store)
        except StoreError as error:
            message = f"the feedback store cannot be reached: {error}"
            raise NotReady(message, retry_after=_RETRY_AFTER_S) from error

    async def _move(self, request: Request, change: Move, move: Callable[[Rollout], Release]) -> Response:
        rollout = Rollout(self._home, self._store, self.task(request), change.actor)
        try:
            release = await self._within(_TIMEOUT_S, move, rollout)
        except ReleaseError as error:
            raise Conflict(str(error)) from None
        return json_response(release.model_dump(mode="json", exclude={"versions"}))


def _progress(home: Path, task: str, *, running: bool) -> dict[str, Any]:
    if (reason := not_yet(home, task)) is not None:
        return {"state": "waiting", "sentence": reason}
    return read_progress(home, task, running=running)


def _versions(config: Config, task: str) -> list[dict[str, Any]]:
    try:
        release = read_release(config.home, task)
    except ReleaseError:  # damaged; promoting one of these versions repairs it
        release = None
    return [_version(config.home, task, version, release) for version in reversed(local_versions(config.home, task))]


def _version(home: Path, task: str, version: str, release: Release | None) -> dict[str, Any]:
    row = {
        "version": version,
        "alias": release and release.alias(version),
        "traffic": release.traffic(version) if release else 0.0,
        "previous": release is not None and release.previous == version,
    }
    try:
        manifest = read_manifest(bundle_folder(home, task, version))
    except BundleError as error:
        return {**row, "error": str(error)}
    fields = ("created", "precision", "max_length", "base_model", "labels", "metrics", "data", "parity", "notes")
    return {**row, **manifest.model_dump(mode="json", include=set(fields))}


def authorize(request: Request, server: ServerConfig) -> None:
    """Raises Forbidden unless the request bears the operator's token, or none is set and the server is on loopback.

    Without a token the Host must be the server's: a page whose domain resolves to loopback would read what is here.
    """
    if server.operator_token is None:
        if is_loopback(server.host):
            refuse_foreign_host(request.headers, accepted_hosts(server.host, server.hosts))
            return
        raise Forbidden("this needs an operator's token; set server.operator_token and send it as a bearer token")
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    token = given.strip().encode("latin-1")  # the header's bytes, which clients send in UTF-8
    if scheme.lower() != "bearer" or not hmac.compare_digest(token, server.operator_token.get_secret_value().encode()):
        raise Forbidden("the bearer token is not the operator's")
