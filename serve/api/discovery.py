"""Labels that are missing and labels that overlap: `GET /v2/discovery/{task}`, by the control application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.discovery.discover import Discovery as Found
from models.discovery.discover import members
from models.discovery.new_labels import Proposal
from models.discovery.overlaps import Overlap
from models.feedback.store import Store
from serve.api.computed import Computed, within
from serve.api.operations import authorize
from serve.api.request import query_parameters
from serve.api.responses import json_response, plain
from serve.api.review import classifier_named, example
from serve.config import Config
from serve.errors import NotReady

BASE = "/v2/discovery"
_MAX_EXAMPLES = 5
_MAX_PROPOSALS = 50
_MAX_OVERLAPS = 50
_RETRY_AFTER_S = 60

Discover = Callable[[str], Found]
"""Runs discovery for a task in a process of its own. Blocks. Raises DiscoveryFailed, and Conflict where
its packages are not installed."""


class DiscoveryFailed(Exception):
    """Raised when the process of a discovery ended without a result; the sentence says why."""


class _Made(NamedTuple):
    at: datetime
    found: Found


class Discovery:
    """The endpoint of all classifiers. Only for operators, since it shows texts of users."""

    def __init__(self, config: Config, store: Store, discover: Discover):
        self._config, self._store, self._discover = config, store, discover
        self._made = Computed("the discovery", self._make)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="discovery-checks")

    def routes(self) -> list[Route]:
        return [Route(f"{BASE}/{{task}}", plain(self.discovery), methods=["GET"])]

    async def discovery(self, request: Request) -> Response:
        """Proposals and overlaps, of some minutes ago. When one of their texts was deleted, they are made anew."""
        authorize(request, self._config.server)
        query_parameters(request)
        task = classifier_named(request, self._config)
        made = await self._get(task)
        check = asyncio.get_running_loop().run_in_executor(self._threads, self._is_logged, task, made.found)
        if not await within(check, "the feedback store does not answer"):
            self._made.forget(task)  # a name may be made of the words of a user who was erased
            made = await self._get(task)
        found = made.found
        return json_response(
            {
                "task": task,
                "champion": found.champion,
                "texts": found.texts,
                "unsure": found.unsure,
                "computed": made.at,
                "proposals": [_proposal(proposal) for proposal in found.proposals[:_MAX_PROPOSALS]],
                "overlaps": [_overlap(overlap) for overlap in found.overlaps[:_MAX_OVERLAPS]],
            }
        )

    async def _get(self, task: str) -> _Made:
        try:
            return await self._made.get(task)
        except DiscoveryFailed as error:
            raise NotReady(str(error), retry_after=_RETRY_AFTER_S) from error

    def _make(self, task: str) -> _Made:
        return _Made(datetime.now(UTC), self._discover(task))

    def _is_logged(self, task: str, found: Found) -> bool:
        ids = {text.id for text in members(found)}
        return self._store.predictions.logged(task, ids) == ids


def _proposal(proposal: Proposal) -> dict[str, Any]:
    return {
        "name": proposal.name,
        "requests": proposal.requests,
        "texts": len(proposal.texts),
        "cohesion": round(proposal.cohesion, 4),
        "taken_for": {label: round(share, 4) for label, share in proposal.taken_for.items()},
        "examples": [example(text) for text in proposal.texts[:_MAX_EXAMPLES]],
    }


def _overlap(overlap: Overlap) -> dict[str, Any]:
    return {
        "labels": list(overlap.labels),
        "corrections": {"changed": overlap.corrections, "of": overlap.of_corrections},
        "holdout": {
            "wrong": None if overlap.holdout is None else round(overlap.holdout, 4),
            "texts": overlap.holdout_texts,
        },
        "sentence": overlap.sentence,
    }
