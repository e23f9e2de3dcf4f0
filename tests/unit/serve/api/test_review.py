"""The review list and the discovery over a real store: what they answer, and what they say to bad input."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import SecretStr
from sklearn.feature_extraction.text import HashingVectorizer
from starlette.applications import Starlette

from models.discovery.discover import Discovery as Found
from models.discovery.discover import discover
from models.feedback.store import Store
from models.feedback.types import LoggedPrediction, NewFeedback
from serve.api.discovery import Discover, Discovery, DiscoveryFailed
from serve.api.review import Review
from serve.config import Config, ServerConfig
from tests.helpers.store_fixtures import made, prediction

# The first are alike.
OTHERS = [f"{verb} the {noun}" for verb in ("cancel", "track", "return", "pay") for noun in ("order", "parcel", "bill")]
TEXTS = [*(f"the voucher code does not work {word}" for word in ("today", "here", "again", "now", "ever")), "hello"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'feedback.db'}")
    yield store
    store.close()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(home=tmp_path)


def logged(number: int, *texts: str, user: str | None = None, score: float = 0.3, **changes: Any) -> LoggedPrediction:
    output = [{"label": "refund", "score": score, "handoff": score < 0.5} for _ in texts]
    return prediction(number, *texts, output=output, user=user, at=datetime.now(UTC), **changes)


def label(number: int, index: int = 0, *, consent: bool = True) -> NewFeedback:
    return NewFeedback("intent", "desk", consent, datetime.now(UTC), "cancel", made(number), index)


def words(texts: Sequence[str]) -> np.ndarray:
    """Vectors of unit length, from words alone."""
    return np.asarray(HashingVectorizer(n_features=256).transform(texts).toarray(), np.float32)


class Client:
    """Asks one application, whose values are kept between requests."""

    def __init__(self, config: Config, store: Store, discover_: Discover | None = None):
        self.runs = 0

        def here(task: str) -> Found:
            self.runs += 1
            return discover(store, config.home, task, words)

        self._routes = [*Review(config, store).routes(), *Discovery(config, store, discover_ or here).routes()]
        self._loop = asyncio.new_event_loop()
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(Starlette(routes=self._routes)), base_url="http://test"
        )

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self._loop.run_until_complete(self._client.get(f"/v2/{path}", **options))

    def get_beside_a_clock(self, path: str) -> tuple[httpx.Response, int]:
        """The response, and how often a clock on the event loop ticked meanwhile, every hundredth of a second."""

        async def both() -> tuple[httpx.Response, int]:
            asking, ticks = asyncio.ensure_future(self._client.get(f"/v2/{path}")), 0
            while not asking.done():
                await asyncio.sleep(0.01)
                ticks += 1
            return asking.result(), ticks

        return self._loop.run_until_complete(both())

    def texts(self, path: str = "review/intent") -> list[str]:
        return [entry["text"] for entry in self.get(path).json()["review"]]

    def close(self) -> None:
        self._loop.run_until_complete(self._client.aclose())
        self._loop.close()


@pytest.fixture
def client(config: Config, store: Store) -> Iterator[Client]:
    client = Client(config, store)
    yield client
    client.close()


def test_an_empty_log_is_an_empty_list(client: Client) -> None:
    answer = client.get("review/intent").json()
    assert (answer["review"], answer["texts"], answer["champion"]) == ([], 0, None)
    answer = client.get("discovery/sentiment").json()
    assert (answer["proposals"], answer["overlaps"], answer["unsure"]) == ([], [], 0)


def test_an_entry_names_its_prediction_and_says_why(client: Client, store: Store) -> None:
    store.predictions.log([logged(1, "hello", "where is it"), logged(2, "Hello", score=0.9)])
    (first, second) = client.get("review/intent").json()["review"]
    assert first == {
        "id": made(1), "index": 1, "text": "where is it",
        "prediction": {"label": "refund", "score": 0.3, "handoff": True, "version": "1"},
        "why": {
            "sentence": "Unsure: refund (0.30). Asked once.", "uncertainty": 1.0, "times": 1, "similar": 0, "new": True,
        },
    }  # fmt: skip
    assert (second["id"], second["why"]["times"]) == (made(2), 2)
    assert client.texts("review/intent?limit=1") == ["where is it"]


@pytest.mark.parametrize("consent", [True, False])
def test_what_was_labelled_is_gone_at_once(client: Client, store: Store, consent: bool) -> None:
    store.predictions.log([logged(1, "hello", "where is it"), logged(2, "cancel it")])
    assert len(client.texts()) == 3
    store.feedback.add([label(1, 1, consent=consent)], keep_days=30)
    assert sorted(client.texts()) == ["cancel it", "hello"]
    by_text = NewFeedback("intent", "desk", True, datetime.now(UTC), "cancel", text="HELLO ")
    store.feedback.add([by_text], keep_days=30)
    assert client.texts() == ["cancel it"]


def test_an_erased_user_is_gone_at_once(client: Client, store: Store) -> None:
    store.predictions.log([logged(n, text, user=f"user {n % 2}") for n, text in enumerate(TEXTS)])
    assert len(client.texts()) == len(TEXTS)
    store.predictions.log([logged(100 + n, text, score=0.99) for n, text in enumerate(OTHERS)])
    (proposal,) = client.get("discovery/intent").json()["proposals"]
    assert "voucher" in proposal["name"]
    assert client.get("discovery/intent").status_code == 200
    assert client.runs == 1
    store.privacy.erase("user 0")
    assert {*TEXTS} & {*client.texts()} == {*TEXTS[1::2]}
    assert client.get("discovery/intent").json()["proposals"] == []
    assert client.runs == 2


def test_discovery_proposes_labels_and_warns_of_overlaps(client: Client, store: Store) -> None:
    store.predictions.log([logged(n, text) for n, text in enumerate(TEXTS)])
    store.predictions.log([logged(100 + n, text, score=0.99) for n, text in enumerate(OTHERS)])
    store.feedback.add([label(100 + n) for n in range(5)], keep_days=30)
    answer = client.get("discovery/intent").json()
    (proposal,) = answer["proposals"]
    assert (proposal["requests"], proposal["texts"], proposal["taken_for"]) == (5, 5, {"refund": 1.0})
    assert [set(example) for example in proposal["examples"]] == [{"id", "index", "text", "prediction"}] * 5
    (overlap,) = answer["overlaps"]
    assert overlap["labels"] == ["cancel", "refund"]
    assert overlap["corrections"] == {"changed": 5, "of": 5}
    assert overlap["holdout"] == {"wrong": None, "texts": 0}


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=-1", "limit=501", "limit=x", "limit=1.5", "limit=", "limit=%C2%B2", "limit=" + "9" * 5000,
     "limit=1&limit=2", "Limit=1", "offset=1"],
)  # fmt: skip
def test_bad_parameters_are_refused(client: Client, query: str) -> None:
    answer = client.get(f"review/intent?{query}")
    assert answer.status_code == 422
    assert set(answer.json()) >= {"error", "code"}
    assert len(answer.content) < 1000
    assert client.get(f"discovery/intent?{query}").status_code == 422


@pytest.mark.parametrize("path", ["review", "discovery"])
@pytest.mark.parametrize(("task", "reason"), [("nothing", "there is no classifier"), ("recommendation", "ranks items")])
def test_only_classifiers_have_texts_to_label(client: Client, path: str, task: str, reason: str) -> None:
    answer = client.get(f"{path}/{task}")
    assert answer.status_code == 404
    assert reason in answer.json()["error"]


@pytest.mark.parametrize("path", ["review/intent", "discovery/intent"])
def test_texts_of_users_are_for_operators(config: Config, store: Store, path: str) -> None:
    guarded = config.model_copy(update={"server": ServerConfig(operator_token=SecretStr("s3cret"))})
    client = Client(guarded, store)
    assert client.get(path).status_code == 403
    assert client.get(path, headers={"authorization": "Bearer s3cret"}).status_code == 200
    client.close()


def test_a_store_that_is_away_is_503(config: Config, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    away = Store(f"sqlite:///{tmp_path / 'broken'}")
    client = Client(config, away)
    for path in ("review/intent", "discovery/intent"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
    client.close()


def test_a_failed_discovery_says_so_and_is_tried_again(config: Config, store: Store) -> None:
    runs = []

    def failing(task: str) -> Found:
        runs.append(task)
        raise DiscoveryFailed("the process ended")

    client = Client(config, store, failing)
    for _ in range(2):
        answer = client.get("discovery/intent")
        assert (answer.status_code, answer.json()["error"]) == (503, "the process ended")
    assert runs == ["intent", "intent"]
    client.close()


def test_the_cost_of_a_long_log_is_bounded(client: Client, store: Store) -> None:
    texts = [f"{word} {n % 97} {n}" for n in range(30_000) for word in ("order", "refund")]
    at = datetime.now(UTC) - timedelta(days=1)
    rows = [logged(n, *texts[100 * n : 100 * n + 100]) for n in range(600)]
    store.predictions.log([*rows, prediction(5000, "the oldest", at=at)])
    answer, ticks = client.get_beside_a_clock("review/intent?limit=500")
    assert (len(answer.json()["review"]), answer.json()["texts"]) == (500, 20_000)
    assert ticks >= 10
