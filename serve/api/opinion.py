"""Opinion monitoring below /v2/opinion: topics, trends and alerts, read from the store by the control application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.feedback.store import Store, StoreError
from models.feedback.store.opinion import ALL
from models.feedback.store.opinion_alerts import Alert
from models.opinion.trends import (
    FIRST,
    QUARTER_S,
    Grid,
    TrendError,
    body,
    grid,
    parse_moment,
    parse_step,
    parse_zone,
)
from models.opinion.types import Counts
from serve.api.request import query_parameters
from serve.api.responses import json_response, plain
from serve.config import Config
from serve.errors import InvalidRequest, NotFound, NotReady

BASE = "/v2/opinion"
_DEFAULT_RANGE = timedelta(days=7)
_DEFAULT_STEP = "1h"
_RETRY_AFTER_S = 5
_TIMEOUT_S = 20.0
_MAX_NAMED = 200  # topics in an error
_MAX_ALERTS = 1000
T = TypeVar("T")


class Opinion:
    """The endpoints. `topics`: names that are known although no text may have had them yet."""

    def __init__(self, config: Config, store: Store, topics: Sequence[str] = ()):
        self._config = config
        self._task = config.opinion.task
        self._store = store
        self._topics = frozenset(topics)
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="opinion")

    def routes(self) -> list[Route]:
        return [
            Route(f"{BASE}/topics", plain(self.topics), methods=["GET"]),
            Route(f"{BASE}/trends", plain(self.trends), methods=["GET"]),
            Route(f"{BASE}/alerts", plain(self.alerts), methods=["GET"]),
        ]

    async def topics(self, request: Request) -> Response:
        """All topics with their counts of the last day and week, to the quarter of an hour."""
        self._parameters(request)
        now = datetime.now(UTC)
        return json_response(await self._query(lambda store: self._topic_counts(store, now)))

    async def trends(self, request: Request) -> Response:
        """The counts of a topic, or of all documents, by time."""
        given = self._parameters(request, "topic", "start", "end", "step", "tz")
        points_of = self._grid(given, datetime.now(UTC))
        topic = given.get("topic")

        def read(store: Store) -> list[tuple[int, ...]]:
            self._require_topic(store, topic)
            stretch = (points_of.rollup_s, points_of.start, points_of.end, points_of.unit_s)
            return store.opinion.sums(self._task, topic or ALL, *stretch)

        rows = await self._query(read)
        return json_response(await self._within(lambda: body(topic, points_of, points_of.points(rows))))

    async def alerts(self, request: Request) -> Response:
        """Alerts, newest first."""
        given = self._parameters(request, "topic", "since", "active")
        topic, active = given.get("topic"), _boolean("active", given.get("active"))
        since = _of_trend(parse_moment, "since", given["since"]) if "since" in given else None

        def read(store: Store) -> list[Alert]:
            self._require_topic(store, topic)
            return store.opinion_alerts.alerts(self._task, topic, since, active, _MAX_ALERTS)

        return json_response({"alerts": [_alert(alert) for alert in await self._query(read)]})

    def _parameters(self, request: Request, *names: str) -> dict[str, str]:
        """The query's parameters. Raises NotFound while no opinions are monitored, InvalidRequest for unknown names."""
        if self._task not in self._config.tasks:
            raise NotFound(f"no opinions are monitored here: the task {self._task!r} (opinion.task) is not served")
        return query_parameters(request, *names)

    def _grid(self, given: dict[str, str], now: datetime) -> Grid:
        """The points that were asked for. Raises InvalidRequest."""
        zone = _of_trend(parse_zone, given.get("tz", "UTC"))
        step = _of_trend(parse_step, given.get("step", _DEFAULT_STEP))
        end = _of_trend(parse_moment, "end", given["end"]) if "end" in given else now
        start = _of_trend(parse_moment, "start", given["start"]) if "start" in given else None
        if start is None:
            start = max(end - _DEFAULT_RANGE, FIRST)
        made = _of_trend(grid, start, end, step, zone)
        keep_days = self._config.opinion.keep_days
        if made.rollup_s < QUARTER_S and made.start < (now - timedelta(days=keep_days)).timestamp():
            raise InvalidRequest(
                f"step: counts by the minute are kept for {keep_days:g} days; before, a step is of whole quarters of "
                "an hour"
            )
        return made

    def _topic_counts(self, store: Store, now: datetime) -> dict[str, Any]:
        names = sorted({*store.opinion.topics(self._task), *self._topics})
        day, week = (
            store.opinion.counts_since(self._task, [ALL, *names], int((now - timedelta(days=days)).timestamp()))
            for days in (1, 7)
        )

        def counts(name: str) -> dict[str, Any]:
            return {"day": _counts(day.get(name, Counts())), "week": _counts(week.get(name, Counts()))}

        return {"topics": [{"topic": name, **counts(name)} for name in names], "all": counts(ALL)}

    def _require_topic(self, store: Store, topic: str | None) -> None:
        """Raises NotFound for a topic that no text had and no file names, InvalidRequest for an empty one."""
        if topic is None or topic in self._topics:
            return
        if topic == ALL:
            raise InvalidRequest("topic: is empty; leave it out for all documents")
        if not store.opinion.has_topic(self._task, topic):
            known = sorted({*store.opinion.topics(self._task), *self._topics})
            shown = ", ".join(known[:_MAX_NAMED]) or "none yet"
            raise NotFound(f"there is no topic {topic[:100]!r}; there are: {shown}", topics=known[:_MAX_NAMED])

    async def _query(self, query: Callable[[Store], T]) -> T:
        """Return `query(store)`, run in a thread. Raises NotReady when the store is unavailable or does not answer."""
        try:
            return await self._within(lambda: query(self._store))
        except StoreError as error:
            message = f"the feedback store cannot be reached: {error}"
            raise NotReady(message, retry_after=_RETRY_AFTER_S) from error

    async def _within(self, do: Callable[[], T]) -> T:
        doing = asyncio.get_running_loop().run_in_executor(self._threads, do)
        try:
            return await asyncio.wait_for(doing, _TIMEOUT_S)
        except TimeoutError:
            sentence = f"the feedback store has not answered for {_TIMEOUT_S:g} s"
            raise NotReady(sentence, retry_after=_RETRY_AFTER_S) from None


def _of_trend(parse: Callable[..., T], *arguments: Any) -> T:
    try:
        return parse(*arguments)
    except TrendError as error:
        raise InvalidRequest(str(error)) from None


def _boolean(name: str, value: str | None) -> bool | None:
    if value is not None and value not in ("true", "false"):
        raise InvalidRequest(f"{name}: {value[:100]!r} is neither true nor false")
    return None if value is None else value == "true"


def _counts(counts: Counts) -> dict[str, Any]:
    return {
        "texts": counts.texts, "stories": counts.stories, "positive": counts.positive, "neutral": counts.neutral,
        "negative": counts.negative, "net": round(counts.net, 4),
    }  # fmt: skip


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "topic": alert.topic, "kind": alert.kind, "started": alert.started, "ended": alert.ended,
        "observed": alert.observed, "expected": alert.expected, "score": alert.score, "examples": alert.examples,
    }  # fmt: skip
