"""What an operator asks of a task over HTTP: promote, roll back, retrain, erase. Each goes into the audit log."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.feedback.store import Store
from models.releases.release import Mode, Release, ReleaseError
from models.releases.rollout import Rollout
from models.retraining.plan import ASKED, lock_of
from models.tasks.base import Strict
from models.training.progress import read_progress
from serve.api.responses import json_response, plain
from serve.api.validation import Model, parse_json, validate
from serve.browser_guard import accepted_hosts, is_loopback, refuse_pages
from serve.config import ServerConfig
from serve.errors import Conflict, Forbidden

if TYPE_CHECKING:
    from serve.engine.replica import Replica

_Line = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=500)]
T = TypeVar("T")


class Move(Strict):
    """Who moves a version, and why; both go into the audit log."""

    who: _Line = "an operator, over HTTP"
    why: _Line = "no reason given"


class Promotion(Move):
    version: str | None = Field(None, description="default: the challenger")


class Rollback(Move):
    version: str | None = Field(
        None,
        description="what to take out: then a repeated request is refused; default: the challenger, or the champion",
    )


class Challenge(Move):
    version: str
    mode: Mode
    share: float = Field(0.1, gt=0, lt=1, description="of the users, for a canary")


class Erasure(Move):
    user: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=100)]


def operator_routes(replica: Replica, base: str) -> list[Route]:
    """The operators' endpoints of one task, below `base`."""
    desk = _Operators(replica)
    return [
        Route(f"{base}/promote", plain(desk.promote), methods=["POST"]),
        Route(f"{base}/challenge", plain(desk.challenge), methods=["POST"]),
        Route(f"{base}/rollback", plain(desk.rollback), methods=["POST"]),
        Route(f"{base}/retrain", plain(desk.retrain), methods=["POST"]),
        Route(f"{base}/retrain", plain(desk.retraining), methods=["GET"]),
        Route(f"{base}/erase", plain(desk.erase), methods=["POST"]),
        Route(f"{base}/audit", plain(desk.audit), methods=["GET"]),
    ]


class _Operators:
    def __init__(self, replica: Replica):
        self._replica = replica
        self._task = replica.task.name
        server = replica.config.server
        self._hosts = accepted_hosts(server.host, server.hosts)

    async def promote(self, request: Request) -> Response:
        asked = await self._asked(request, Promotion)
        return await self._move(asked, lambda rollout: rollout.promote(asked.version, asked.why))

    async def challenge(self, request: Request) -> Response:
        asked = await self._asked(request, Challenge)
        return await self._move(
            asked, lambda rollout: rollout.challenge(asked.version, asked.mode, asked.share, asked.why)
        )

    async def rollback(self, request: Request) -> Response:
        asked = await self._asked(request, Rollback)
        return await self._move(asked, lambda rollout: rollout.rollback(asked.why, asked.version))

    async def retrain(self, request: Request) -> Response:
        """202: the loop starts it within seconds; `retraining` says how far it is, the audit log what came of it."""
        asked = await self._asked(request, Move)
        await self._with_store(lambda store: store.audit.append(self._task, ASKED, None, asked.who, asked.why))
        return json_response({"status": "asked"}, 202)

    async def retraining(self, request: Request) -> Response:
        self._authorize(request)
        running = await self._with_store(lambda store: store.locks.is_held(lock_of(self._task)))
        home = self._replica.config.home
        return json_response(await asyncio.to_thread(read_progress, home, self._task, running=running))

    async def erase(self, request: Request) -> Response:
        asked = await self._asked(request, Erasure)
        user = self._replica.recorder.hashed(asked.user)
        assert user is not None
        await self._replica.recorder.flush()
        erased = await self._with_store(lambda store: store.privacy.erase(user, actor=asked.who, reason=asked.why))
        return json_response(
            {"predictions": erased.predictions, "feedback": erased.feedback, "learned_by": erased.versions}
        )

    async def audit(self, request: Request) -> Response:
        self._authorize(request)
        entries = await self._with_store(lambda store: store.audit.entries(self._task))
        fields = {
            "at": "at",
            "action": "action",
            "version": "version",
            "who": "actor",
            "why": "reason",
            "detail": "detail",
        }
        return json_response({"audit": [{k: getattr(entry, name) for k, name in fields.items()} for entry in entries]})

    async def _asked(self, request: Request, model: type[Model]) -> Model:
        """What is asked for. Raises as `refuse_pages`, `authorize` and `validate` do; each change goes through here."""
        refuse_pages(request.headers, self._hosts)
        self._authorize(request)
        body = await request.body()
        return validate(model, parse_json(body) if body.strip() else {})

    async def _with_store(self, work: Callable[[Store], T]) -> T:
        return await self._replica.recorder.ask(work)

    async def _move(self, asked: Move, move: Callable[[Rollout], Release]) -> Response:
        home = self._replica.config.home

        def run(store: Store) -> Release:
            return move(Rollout(home, store, self._task, asked.who))

        try:
            release = await asyncio.to_thread(run, self._replica.recorder.store)
        except ReleaseError as error:
            raise Conflict(str(error)) from None
        return json_response(release.model_dump(mode="json", exclude={"versions"}))

    def _authorize(self, request: Request) -> None:
        authorize(request, self._replica.config.server)


def authorize(request: Request, server: ServerConfig) -> None:
    """Raises Forbidden unless the request bears the operator's token, or there is none and the server is private."""
    if server.operator_token is None:
        if is_loopback(server.host):
            return
        raise Forbidden("this needs an operator's token; set server.operator_token and send it as a bearer token")
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode(), server.operator_token.get_secret_value().encode()):
        raise Forbidden("the bearer token is not the operator's")
