"""What of a request is kept: under the user's hash, wherever the request names the user."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from dataclasses import astuple, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from models.entities import read_registry
from models.feedback.pseudonyms import UserHasher
from models.feedback.types import LoggedPrediction, NewFeedback, Receipt
from models.opinion.types import Document
from models.tasks.intent import Intent, IntentRequest
from models.tasks.recommendation import Recommendation
from models.users import require_user
from serve.config import FeedbackConfig, PredictionLogConfig
from serve.errors import InvalidRequest, NotReady
from serve.feedback import writer
from serve.feedback.intake import Feedback, FeedbackService
from serve.feedback.writer import PredictionLogger, now
from serve.metrics import Metrics
from tests.helpers.collectors import registry_restored
from tests.helpers.postgres import PostgresMissing, PostgresServer, postgres_server
from tests.helpers.store import bytes_of_store

USER = "customer-4711"


@pytest.fixture
def prediction_logger(tmp_path: Path) -> Iterator[PredictionLogger]:
    database, hasher = f"sqlite:///{tmp_path / 'feedback.db'}", UserHasher(b"a secret of this test")
    with registry_restored():
        running = PredictionLogger(database, hasher, FeedbackConfig(), Metrics("recommendation"))
        running.start()
        yield running
        running.stop()


def test_a_ranking_is_kept_without_the_name_of_its_user(prediction_logger: PredictionLogger, tmp_path: Path) -> None:
    asked = {**Recommendation.example, "user": {"id": USER, "history": ["mug"]}}
    request = Recommendation.Request.model_validate(asked)
    now = datetime.now(UTC)
    prediction_logger.log(LoggedPrediction("1" * 32, "recommendation", "1", request, [{"id": "a"}], now, user=USER))
    asyncio.run(prediction_logger.flush())
    prediction_logger.stop()
    (kept,) = prediction_logger.store.predictions.latest("recommendation", now - timedelta(seconds=1), 10)
    assert kept.user == kept.input["user"]["id"] == UserHasher(b"a secret of this test").hashed(require_user(USER))
    assert kept.input["user"]["history"] == ["mug"]
    stored = bytes_of_store(tmp_path)
    assert b"mug" in stored
    assert USER.encode() not in stored


def test_rankings_that_wait_are_few_objects(prediction_logger: PredictionLogger) -> None:
    """The garbage collector walks through what waits, and stops the event loop meanwhile."""
    asked = {"candidates": [{"id": f"{i}", "text": "a mug", "features": {"price": 1.0}} for i in range(100)]}
    prediction_logger.stop()
    gc.collect()
    before = len(gc.get_objects())
    for number in range(30):
        request = Recommendation.Request.model_validate(asked)
        id_, at = f"{number:032d}", datetime.now(UTC)
        prediction_logger.log(LoggedPrediction(id_, "recommendation", "1", request, [], at))
    del request
    gc.collect()
    assert len(gc.get_objects()) - before < 500


@pytest.mark.parametrize(
    ("articles", "kept"),
    [
        (["5901234123457", "4155550123", "2025550123"], [None, None, None]),  # they look like cards and phone numbers
        (["ann@example.org", "bob@example.org", "b" * 150], ["[email]", "[email]", None]),
    ],
)
def test_an_item_is_found_in_its_ranking_whatever_its_id_looks_like(
    prediction_logger: PredictionLogger, articles: list[str], kept: list[str | None]
) -> None:
    candidates = [{"id": article, "text": f"item {i}"} for i, article in enumerate(articles)]
    asked = {"candidates": candidates, "user": {"history": [candidates[0], "a text"]}}
    now = datetime.now(UTC)
    prediction_logger.log(
        LoggedPrediction(
            "2" * 32, "recommendation", "1", Recommendation.Request.model_validate(asked),
            [{"id": article, "score": 0.5} for article in reversed(articles)], now,
        )
    )  # fmt: skip

    async def click() -> list[Receipt]:
        await prediction_logger.flush()
        clicks = [
            NewFeedback("recommendation", "shop", True, now, prediction_id="2" * 32, item_id=article, event="buy")
            for article in articles
        ]
        return await prediction_logger.feedback(clicks)

    assert [receipt.outcome for receipt in asyncio.run(click())] == ["accepted"] * 3
    store = prediction_logger.store
    samples = sorted(store.queue.lease("recommendation", "me", 9, 9), key=lambda sample: sample.text)
    assert [sample.text for sample in samples] == ["item 0", "item 1", "item 2"]
    found = [sample.extra["item_id"] for sample in samples]
    (logged,) = store.predictions.latest("recommendation", now, 1)
    assert [row["id"] for row in logged.input["candidates"]] == found
    assert [row["id"] for row in reversed(logged.output)] == found
    assert logged.input["user"]["history"][0]["id"] == found[0]
    assert [id_.partition(" ")[0] for id_ in found] == [
        article if form is None else form for article, form in zip(articles, kept, strict=True)
    ]


@pytest.mark.parametrize("id_", ["https://shop.example/" + "p" * 150, "a\tb", " ", "\x00"])
def test_what_may_be_ranked_may_be_clicked(id_: str) -> None:
    Recommendation.Request.model_validate({"candidates": [{"id": id_, "text": "a mug"}]})
    Feedback.model_validate({"id": "2" * 32, "item_id": id_, "event": "click"})


@pytest.mark.parametrize("field", ["source", "label"])
def test_personal_data_in_a_label_or_a_source_is_refused_before_it_is_stored(
    prediction_logger: PredictionLogger, tmp_path: Path, field: str
) -> None:
    service = FeedbackService(Intent, prediction_logger, new_labels=True, keep_days=30, max_items=10)
    good = {"text": "where is it", "label": "a_new_label", "source": "support-desk"}
    secret = "zoe.quimby@example.net"

    async def send() -> list[dict[str, Any]]:
        batch = [Feedback.model_validate(good | {field: f"from {secret}"}), Feedback.model_validate(good)]
        with pytest.raises(InvalidRequest, match=f"{field}: this holds personal data"):
            await service.accept_one(batch[0], [])
        return await service.accept(batch, [])

    refused, taken = asyncio.run(send())
    assert (refused["code"], refused["fields"][0]["field"]) == ("invalid_request", field)
    assert secret not in str(refused)
    assert taken == {"status": "accepted"}
    prediction_logger.stop()
    stored = bytes_of_store(tmp_path)
    assert b"support-desk" in stored
    assert secret.encode() not in stored


def test_all_of_an_answer_is_kept_but_what_is_personal(prediction_logger: PredictionLogger) -> None:
    now = datetime.now(UTC)
    text = "write to zoe.quimby@example.net"
    given = LoggedPrediction(
        "3" * 32, "intent", "7", [text, "x" * 5_000], [{"label": text, "score": 0.5}], now, text, USER, "Zoë"
    )
    prediction_logger.log(given)
    asyncio.run(prediction_logger.flush())
    (kept,) = prediction_logger.store.predictions.latest("intent", now, 10)
    clean = "write to [email]"
    hashed, subject = (UserHasher(b"a secret of this test").hashed(require_user(name)) for name in (USER, "Zoe\u0308"))
    output = [{"label": clean, "score": 0.5}]
    assert kept == replace(given, input=[clean, "x" * 4_000], output=output, topic=clean, user=hashed, subject=subject)
    assert None not in astuple(given)


def answers(prediction_logger: PredictionLogger, count: int) -> datetime:
    now = datetime.now(UTC)
    for number in range(count):
        prediction_logger.log(LoggedPrediction(f"{number:032d}", "intent", "1", ["a text"], [], now))
    return now


def test_a_flush_writes_more_than_one_transaction_takes(prediction_logger: PredictionLogger) -> None:
    now = answers(prediction_logger, 5_000)
    asyncio.run(prediction_logger.flush())
    assert len(prediction_logger.store.predictions.latest("intent", now, 10_000)) == 5_000


def test_a_stop_writes_more_than_one_transaction_takes(prediction_logger: PredictionLogger) -> None:
    now = answers(prediction_logger, 5_000)
    prediction_logger.stop()
    assert len(prediction_logger.store.predictions.latest("intent", now, 10_000)) == 5_000


def test_a_postgresql_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a disk that neither writes nor fails. What was not begun is withdrawn; what was counts once."""
    monkeypatch.setattr(writer, "_CONFIRM_TIMEOUT_S", 0.5)
    before = set(REGISTRY._names_to_collectors.values())
    correction = NewFeedback(task="intent", source="desk", consent=True, at=now(), label="refund", text="a text")
    later = replace(correction, text="another")

    async def run(server: PostgresServer) -> None:
        hasher = UserHasher(b"a secret of this test")
        running = PredictionLogger(server.new_database(), hasher, FeedbackConfig(), Metrics("intent"))
        running.start()
        assert [receipt.outcome for receipt in await running.feedback([replace(correction, text="before")])] == [
            "accepted"
        ]
        server.pause()
        try:
            for item in (correction, later, later):
                with pytest.raises(NotReady, match="send this again") as refused:
                    await running.feedback([item])
                assert refused.value.retry_after
            with pytest.raises(NotReady, match="does not answer"):
                await running.query(lambda store: store.feedback.counts("intent"))
            assert running._queued == 0
        finally:
            server.resume()
        deadline = time.monotonic() + 10
        while running._writing_since < time.monotonic() - 0.1:  # the write that hung
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        outcomes = [(await running.feedback([item]))[0].outcome for item in (correction, later)]
        assert outcomes[0] in ("accepted", "duplicate", "replaced")
        assert outcomes[1] == "accepted"
        counts = await running.query(lambda store: store.feedback.counts("intent"))
        assert counts["waiting"] == 3
        await asyncio.to_thread(running.stop)

    try:
        with postgres_server() as server:
            asyncio.run(run(server))
    except PostgresMissing as missing:
        pytest.skip(str(missing))
    finally:
        for collector in set(REGISTRY._names_to_collectors.values()) - before:
            REGISTRY.unregister(collector)


def _document(index: int, text: str, **changes: Any) -> Document:
    at = datetime.now(UTC)
    values: dict[str, Any] = {
        "document_id": f"{'3' * 32}/{index}", "text": text, "published": at, "topics": ("airlines",),
        "label": "negative", "score": 0.8, "prediction_id": "3" * 32, "at": at,
    }  # fmt: skip
    return Document(**values | changes)


@pytest.mark.parametrize("sample", [1.0, 0.0])
def test_documents_are_stored_whatever_share_is_logged_and_without_personal_data(tmp_path: Path, sample: float) -> None:
    settings, user = FeedbackConfig(log=PredictionLogConfig(sample=sample)), require_user(USER)
    hasher = UserHasher(b"a secret of this test")
    texts = ["mail ann@example.org about the heron", "the ibis"]
    with registry_restored():
        running = PredictionLogger(f"sqlite:///{tmp_path / 'feedback.db'}", hasher, settings, Metrics("sentiment"))
        running.start()
        ids = ["wire of bob@example.org", "20270101123456"]
        running.log(LoggedPrediction("3" * 32, "sentiment", "1", texts, [{}, {}], now(), user=user))
        running.log_documents("sentiment", [_document(i, text) for i, text in enumerate(texts)], user)
        odd = [_document(0, "a", prediction_id="4", document_id=id_, topics=("of ann@example.org",)) for id_ in ids]
        running.log_documents("sentiment", odd, None)
        asyncio.run(running.flush())
        running.stop()
    waiting = running.store.opinion.next_batch("sentiment", 9)
    assert len(running.store.predictions.latest("sentiment", datetime(2020, 1, 1, tzinfo=UTC), 9)) == int(sample)
    assert [item.document.text for item in waiting] == ["mail [email] about the heron", "the ibis", "a", "a"]
    assert [item.user for item in waiting] == [hasher.hashed(user)] * 2 + [None] * 2
    assert waiting[2].document.document_id.startswith("wire of [email] ")  # with a hash, so that two stay two
    assert [item.document.document_id for item in waiting][1::2] == [f"{'3' * 32}/1", "20270101123456"]
    assert waiting[2].document.topics == ("of [email]",)
    assert b"@example.org" not in bytes_of_store(tmp_path)


def test_documents_have_a_bound_of_their_own_and_drops_are_counted(
    prediction_logger: PredictionLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_MAX_DOCUMENTS", 3)
    prediction_logger.stop()  # nothing is written meanwhile
    for _ in range(3):
        prediction_logger.log_documents("recommendation", [_document(0, "a"), _document(1, "b")], None)
    labels = {"task": "recommendation", "reason": "full"}
    assert REGISTRY.get_sample_value("flywheel_uncounted_documents_total", labels) == 4
    prediction_logger._write_predictions()
    assert len(prediction_logger.store.opinion.next_batch("recommendation", 9)) == 2
    prediction_logger.log_documents("recommendation", [_document(0, "a"), _document(1, "b")], None)
    prediction_logger._write_predictions()
    assert len(prediction_logger.store.opinion.next_batch("recommendation", 9)) == 4


def test_documents_stay_buffered_while_the_store_is_away(tmp_path: Path) -> None:
    place = tmp_path / "away"
    place.write_text("no directory")
    with registry_restored():
        running = PredictionLogger(
            f"sqlite:///{place / 'feedback.db'}",
            UserHasher(b"a secret of this test"),
            FeedbackConfig(),
            Metrics("sentiment"),
        )
        running.log_documents("sentiment", [_document(0, "a text")], None)
        running._write_predictions()
        place.unlink()
        running._write_predictions()
        assert [item.document.text for item in running.store.opinion.next_batch("sentiment", 9)] == ["a text"]
        running.store.close()


def test_neither_slots_nor_own_personal_data_are_written(tmp_path: Path) -> None:
    """A deployment's personal types are replaced; what a request gives for the slots of an answer is not stored."""
    file = tmp_path / "entities.yaml"
    file.write_text(r"types: {customer_id: {patterns: ['C-\d{6}'], personal: true}}", encoding="utf-8")
    request = IntentRequest.model_validate(
        {"text": "I am C-123456, order 88231, ann@example.com", "slots": {"customer_name": "Ann Smithson"}}
    )
    logged = Intent.logged_input(None, request, request.all_texts())  # type: ignore[arg-type]  # of no instance's state
    output = [{field.name: field.name for field in Intent.outputs}]
    with registry_restored():
        running = PredictionLogger(
            f"sqlite:///{tmp_path / 'feedback.db'}",
            UserHasher(b"a secret of this test"),
            FeedbackConfig(),
            Metrics("intent"),
            read_registry(file),
        )
        running.start()
        running.log(LoggedPrediction("1" * 32, "intent", "1", logged, output, now()))
        running.stop()
        (kept,) = running.store.predictions.latest("intent", datetime.now(UTC) - timedelta(minutes=1), 10)
    assert kept.input == ["I am [customer_id], order 88231, [email]"]
    stored = bytes_of_store(tmp_path)
    assert b"Smithson" not in stored
    assert b"C-123456" not in stored
