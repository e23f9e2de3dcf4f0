"""The endpoints of opinion monitoring over a real store: what they answer, and what they say to bad input."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.applications import Starlette

from models.feedback.store import Store
from serve.api.openapi import openapi
from serve.api.opinion import Opinion
from serve.config import Config, OpinionConfig
from serve.controller.opinion import OpinionReconciler
from tests.helpers.opinion import documents, new_document, send
from tests.helpers.store_fixtures import NOW


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'feedback.db'}")
    yield store
    store.close()


def get(store: Store, path: str, config: Config | None = None, topics: tuple[str, ...] = ()) -> httpx.Response:
    app = Starlette(routes=Opinion(config or Config(), store, topics).routes())

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.get(f"/v2/opinion/{path}")

    return asyncio.run(ask())


def count(store: Store, *items: Any) -> None:
    send(store, *items)
    OpinionReconciler(OpinionConfig(), store).step()


RANGE = "start=2026-05-01T00:00:00Z&end=2026-05-02T00:00:00Z"


def test_a_trend_has_every_point_of_its_range(store: Store) -> None:
    count(
        store,
        new_document("Gold hits two-week high as yields fall", label="positive"),
        new_document("UPDATE 1-Gold hits two-week high as yields fall", label="positive"),
        new_document("Kestrand Bank to buy rival Olvane", topics=("banks",), label="negative"),
    )
    answer = get(store, f"trends?topic=airlines&{RANGE}&step=6h").json()
    assert (answer["topic"], answer["step_s"]) == ("airlines", 21_600)
    assert [point["texts"] for point in answer["points"]] == [0, 0, 2, 0]
    assert answer["points"][2] == {
        "time": "2026-05-01T12:00:00Z", "texts": 2, "stories": 1, "positive": 2, "neutral": 0, "negative": 0,
        "net": 1.0,
    }  # fmt: skip
    everything = get(store, f"trends?{RANGE}&step=P1D&tz=Europe/Berlin").json()
    assert everything["topic"] is None
    assert [(point["time"], point["texts"], point["net"]) for point in everything["points"]] == [
        ("2026-05-01T00:00:00+02:00", 3, 0.0),
        ("2026-05-02T00:00:00+02:00", 0, 0.0),
    ]


@pytest.mark.parametrize("step", ["1m", "PT5H", "1d", "1mo"])
def test_a_trend_adds_up_whatever_its_step(store: Store, step: str) -> None:
    count(store, *documents(random.Random(3), 60, days=4))
    whole = "start=2026-04-27T00:00:00Z&end=2026-05-02T00:00:00Z"
    for topic in ("", "topic=banks&"):
        by_day = get(store, f"trends?{topic}{whole}&step=1d").json()["points"]
        points = get(store, f"trends?{topic}{whole}&step={step}&tz=America/New_York").json()["points"]
        assert sum(point["texts"] for point in points) == sum(point["texts"] for point in by_day) > 20
        assert sum(point["stories"] for point in points) == sum(point["stories"] for point in by_day) > 5


def test_without_parameters_a_trend_is_of_the_last_week_by_the_hour(store: Store) -> None:
    count(store, new_document("a text", published=datetime.now(UTC)))
    points = get(store, "trends").json()["points"]
    assert len(points) in (168, 169)
    assert points[-1]["texts"] == 1


def test_topics_have_their_counts_of_the_day_and_the_week(store: Store) -> None:
    now = datetime.now(UTC)
    count(store, *(new_document(f"text {d}", published=now - timedelta(days=d), topics=("a",)) for d in (0, 3, 9)))
    answer = get(store, "topics", topics=("named in the file",)).json()
    assert [(row["topic"], row["day"]["texts"], row["week"]["stories"]) for row in answer["topics"]] == [
        ("a", 1, 2), ("named in the file", 0, 0),
    ]  # fmt: skip
    assert answer["all"]["week"]["negative"] == 2


def test_alerts_are_those_that_were_asked_for(store: Store) -> None:
    values: dict[str, Any] = {"observed": 9.0, "expected": 2.5, "score": 6.0, "examples": ["doc-1"]}
    count(store, new_document("a text"))
    id_ = store.opinion_alerts.open_alert("sentiment", "airlines", "negative_surge", NOW, **values)
    assert get(store, "alerts?topic=airlines&active=true").json() == {
        "alerts": [{"topic": "airlines", "kind": "negative_surge", "started": "2026-05-01T12:00:00+00:00",
                    "ended": None, **values}]
    }  # fmt: skip
    assert id_ is not None
    store.opinion_alerts.close_alert(id_, NOW + timedelta(hours=2))
    assert get(store, "alerts?active=true").json() == {"alerts": []}
    assert get(store, "alerts?since=2026-05-01T15:00:00Z").json() == {"alerts": []}
    assert len(get(store, "alerts?since=2026-05-01T13:00:00Z").json()["alerts"]) == 1


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("trends?step=0m", "step: '0m' is no time at all"),
        ("trends?step=30s", "step: '30s' is no step; give 1m,"),
        ("trends?start=2024-05-01T00:00:00Z&end=2026-05-01T00:00:00Z&step=1m", "1,051,200 points; at most 10,000"),
        ("trends?start=2026-05-01T00:00:00Z&end=2026-04-01T00:00:00Z", "start: .*not before the end"),
        ("trends?start=2199-05-01T00:00:00Z", "start: .*not before the end"),
        ("trends?tz=Europe/Atlantis", "tz: there is no time zone 'Europe/Atlantis'"),
        ("trends?start=2026-05-01T00:00:00", "start: .*has no zone"),
        ("trends?start=1066-10-14T09:00:00Z", "start: .*not between 1970 and 2200"),
        ("trends?end=12026-05-01T00:00:00Z", "end: .*is no time"),
        ("trends?topik=airlines", "topik: there is no such parameter here; there are: topic, start, end, step, tz"),
        ("trends?step=1h&step=1d", "step: is given twice"),
        ("trends?topic=", "topic: is empty"),
        ("trends?start=2020-05-01T00:00:00Z&end=2020-05-02T00:00:00Z&step=5m", "step: counts by the minute are kept"),
        ("topics?limit=3", "limit: there is no such parameter here; there are: none"),
        ("alerts?active=maybe", "active: 'maybe' is neither true nor false"),
        ("alerts?since=yesterday", "since: 'yesterday' is no time"),
    ],
)
def test_bad_input_gets_a_sentence(store: Store, path: str, says: str) -> None:
    answer = get(store, path)
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "invalid_request"
    assert re.search(says, answer.json()["error"]), answer.json()["error"]


def test_no_point_begins_before_the_counts_of_which_it_is_made(store: Store) -> None:
    start = datetime.now(UTC) - timedelta(days=400) + timedelta(seconds=2)
    answer = get(store, f"trends?start={quote(start.isoformat())}&step=1501m")
    assert "are kept for 400 days" in answer.json()["error"]
    assert get(store, f"trends?start={quote(start.isoformat())}&step=1515m").status_code == 200


@pytest.mark.parametrize("path", ["trends?topic=", "alerts?topic="])
def test_an_unknown_topic_gets_the_known_ones(store: Store, path: str) -> None:
    count(store, new_document("a text", topics=("airlines", "banks")))
    answer = get(store, path + quote("airlines;--\x00"), topics=("named",))
    assert answer.status_code == 404
    assert answer.json()["topics"] == ["airlines", "banks", "named"]
    assert "there are: airlines, banks, named" in answer.json()["error"]
    assert get(store, f"{path}named", topics=("named",)).status_code == 200


def test_a_store_that_is_away_is_503(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    away = Store(f"sqlite:///{tmp_path / 'file' / 'feedback.db'}")
    for path in ("topics", "trends", "alerts"):
        answer = get(away, path)
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert answer.headers["retry-after"] == "5"


def test_without_the_task_there_are_no_opinions(store: Store) -> None:
    answer = get(store, "trends", Config(tasks={"intent": {}}))
    assert answer.status_code == 404
    assert "the task 'sentiment' (opinion.task) is not served" in answer.json()["error"]


def test_the_endpoints_are_described(tmp_path: Path) -> None:
    described = openapi(["intent", "sentiment"], "0", opinion=True)
    OpenAPIV31SpecValidator(described).validate()
    paths = {path for path in described["paths"] if path.startswith("/v2/opinion")}
    assert paths == {route.path for route in Opinion(Config(), Store(f"sqlite:///{tmp_path / 'f.db'}")).routes()}
    assert not any(path.startswith("/v2/opinion") for path in openapi(["intent"], "0")["paths"])
