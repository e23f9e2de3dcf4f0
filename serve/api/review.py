"""What to label next: `GET /v2/review/{task}`, from the prediction log, by the control application."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.discovery import review
from models.discovery.logged_texts import LoggedText
from models.discovery.review import MAX_SUGGESTIONS, Suggestion
from models.feedback.store import Store
from models.tasks.base import get_task
from serve.api.computed import Computed, within
from serve.api.operations import authorize
from serve.api.request import query_parameters
from serve.api.responses import json_response, plain
from serve.config import Config
from serve.errors import InvalidRequest, NotFound

BASE = "/v2/review"
DEFAULT_LIMIT = 20
_SHOWN = ("label", "score", "confidence", "handoff", "reason", "top_k", "scores")


class _Made(NamedTuple):
    at: datetime
    review: review.Review


class Review:
    """The endpoint of all classifiers. Only for operators, since it shows texts of users."""

    def __init__(self, config: Config, store: Store):
        self._config = config
        self._store = store
        self._made = Computed("the review list", self._make)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="review-checks")

    def routes(self) -> list[Route]:
        return [Route(f"{BASE}/{{task}}", plain(self.suggestions), methods=["GET"])]

    async def suggestions(self, request: Request) -> Response:
        """The texts, the most useful first. The order of a long log is kept for a while; what is labelled is gone."""
        authorize(request, self._config.server)
        task = classifier_named(request, self._config)
        limit = _limit(query_parameters(request, "limit").get("limit"))
        made = await self._made.get(task)
        check = asyncio.get_running_loop().run_in_executor(
            self._threads, review.still_open, self._store, task, made.review.suggestions, made.at
        )
        found = await within(check, "the feedback store does not answer")
        return json_response(
            {
                "task": task,
                "champion": made.review.champion,
                "texts": made.review.texts,
                "computed": made.at,
                "review": [_suggestion(suggestion) for suggestion in found[:limit]],
            }
        )

    def _make(self, task: str) -> _Made:
        at = datetime.now(UTC)  # before the labels are read, so that none is missed
        return _Made(at, review.review(self._store, self._config.home, task))


def classifier_named(request: Request, config: Config) -> str:
    """The classifier in the path. Raises NotFound for a task that is not served, or has no labels."""
    task: str = request.path_params["task"]
    served = [name for name in config.tasks if get_task(name).kind == "classifier"]
    if task in config.tasks and task not in served:
        raise NotFound(f"{task} ranks items, and no text of it has a label; this is for: {', '.join(served)}")
    if task not in served:
        raise NotFound(f"there is no classifier {task[:100]!r}; there are: {', '.join(served)}", models=served)
    return task


def example(text: LoggedText) -> dict[str, Any]:
    """A logged text as operators see it: `id` and `index` name it in feedback."""
    shown = {name: text.prediction[name] for name in _SHOWN if name in text.prediction}
    return {"id": text.id, "index": text.index, "text": text.text, "prediction": {**shown, "version": text.version}}


def _suggestion(suggestion: Suggestion) -> dict[str, Any]:
    why = {
        "sentence": suggestion.reason,
        "uncertainty": round(suggestion.uncertainty, 4),
        "times": suggestion.text.times,
        "similar": suggestion.similar,
        "new": suggestion.text.new,
    }
    return {**example(suggestion.text), "why": why}


def _limit(value: str | None) -> int:
    if value is None:
        return DEFAULT_LIMIT
    if not (value.isascii() and value.isdecimal() and len(value) <= 6 and 1 <= int(value) <= MAX_SUGGESTIONS):
        raise InvalidRequest(f"limit: {value[:100]!r} is no whole number from 1 to {MAX_SUGGESTIONS}")
    return int(value)
