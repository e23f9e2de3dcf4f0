"""A request of sentiment says what its texts are about and when they appeared; the answer names their topics."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from pydantic import ValidationError

from export.bundle import Bundle
from models.opinion.topics_file import TopicsError
from models.opinion.types import Counts, Document
from models.tasks.base import MAX_ITEMS, Prediction
from models.tasks.intent import Intent
from models.tasks.sentiment import MAX_ID, Sentiment, SentimentOptions, SentimentRequest
from serve.api import oip
from tests.helpers.tiny_readers import tiny_bundle

TOPICS = "oil: [crude, 原油]\nUS dollar:\n  aliases: [greenback]\n  keywords: [fx]\n"
AT = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentiment")
    tiny_bundle(folder / "bundle", encoder=False)
    (folder / "topics.yaml").write_text(TOPICS)
    return folder


@pytest.fixture(scope="module")
def task(folder: Path) -> Sentiment:
    return loaded(folder, topics=str(folder / "topics.yaml"))


def loaded(folder: Path, **options: Any) -> Sentiment:
    return Sentiment(Bundle.open(folder / "bundle"), SentimentOptions.model_validate(options))


def answer(task: Sentiment, **request: Any) -> tuple[SentimentRequest, list[Prediction]]:
    validated = SentimentRequest.model_validate(request)
    texts = task.texts(validated)
    output = np.tile(np.eye(1, len(task.labels), dtype=np.float32), (len(texts), 1))
    return validated, task.decode(validated, output, [False] * len(texts))


def topics(task: Sentiment, **request: Any) -> list[list[str]]:
    return [prediction["topics"] for prediction in answer(task, **request)[1]]


def fault(**request: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        SentimentRequest.model_validate(request)
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in caught.value.errors())


def test_topics_are_those_given_or_found_or_other(task: Sentiment, folder: Path) -> None:
    texts = ["Crude and fx slip", "a shop opens", "原油大跌"]
    assert topics(task, texts=texts) == [["oil", "US dollar"], ["other"], ["oil"]]
    assert topics(task, text=texts[0], topic="Greenback") == [["US dollar"]]
    assert topics(task, text=texts[0], topic=" my own ") == [["my own"]]
    assert topics(task, text=texts[0], topic="Other") == [["other"]]
    assert topics(task, texts=texts[:2], topic="OIL") == [["oil"], ["oil"]]
    documents = [{"text": texts[0]}, {"text": texts[0], "topic": "shops"}, {"text": texts[1]}]
    assert topics(task, documents=documents) == [["oil", "US dollar"], ["shops"], ["other"]]
    without = loaded(folder)
    assert topics(without, text=texts[0]) == [["other"]]
    assert topics(without, text=texts[0], topic="OIL") == [["OIL"]]


def test_the_option_is_a_file_that_must_be_right(folder: Path) -> None:
    read = SentimentOptions.model_validate({"topics": str(folder / "topics.yaml")})
    assert SentimentOptions.model_validate(dict(read)) == read, "what was read is not read again"
    with pytest.raises(TopicsError, match="cannot be read"):
        SentimentOptions.model_validate({"topics": str(folder / "none.yaml")})
    with pytest.raises(ValidationError):
        SentimentOptions.model_validate({"topics": ["oil"]})


@pytest.mark.parametrize(
    ("time", "means"),
    [
        ("2026-03-29T02:30:00Z", "2026-03-29T02:30:00+00:00"),
        ("2026-03-29t02:30:00z", "2026-03-29T02:30:00+00:00"),
        ("2026-03-29 02:30:00.25+09:00", "2026-03-28T17:30:00.250000+00:00"),
        ("2026-03-29T02:30:00.123456789-03:30", "2026-03-29T06:00:00.123456+00:00"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00+00:00"),
        ("1970-01-01T09:00:00+09:00", "1970-01-01T00:00:00+00:00"),
    ],
)
def test_times_are_rfc_3339(time: str, means: str) -> None:
    read = SentimentRequest.model_validate({"text": "a", "published": time}).published
    assert read is not None
    assert read.astimezone(UTC).isoformat() == means


@pytest.mark.parametrize(
    ("time", "reason"),
    [
        ("2026-03-29T02:30:00", "has no zone; end it with Z for UTC"),
        ("2026-03-29", "is not a time as RFC 3339 writes it"),
        ("2026-03-29T02:30Z", "is not a time as RFC 3339 writes it"),
        ("20260329T023000Z", "is not a time as RFC 3339 writes it"),
        ("yesterday", "is not a time as RFC 3339 writes it"),
        ("", "is not a time as RFC 3339 writes it"),
        ("٢٠٢٦-03-29T02:30:00Z", "is not a time"),
        (1764000000, "is not a time as RFC 3339 writes it"),
        (True, "is not a time as RFC 3339 writes it"),
        ({}, "is not a time as RFC 3339 writes it"),
        ("2026-02-30T00:00:00Z", "is not a time that exists"),
        ("2026-02-03T25:00:00Z", "is not a time that exists"),
        ("2026-02-03T05:00:00+25:00", "is not a time that exists"),
        ("1969-12-31T23:59:59Z", "lies before 1970"),
        ("0001-01-01T00:00:00+14:00", "lies before 1970"),
        ("9999-12-31T23:59:59-14:00", "lies more than a day in the future"),
        ((datetime.now(UTC) + timedelta(hours=25)).isoformat(), "lies more than a day in the future"),
    ],
)
def test_a_time_that_cannot_be_right_is_refused(time: Any, reason: str) -> None:
    assert reason in fault(text="a", published=time)
    assert fault(documents=[{"text": "a"}, {"text": "b", "published": time}]).startswith("documents.1.published: ")


def test_clocks_may_differ_by_a_day() -> None:
    ahead = (datetime.now(UTC) + timedelta(hours=23)).isoformat()
    assert SentimentRequest.model_validate({"text": "a", "published": ahead})


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({}, "give one of 'text', 'texts' and 'documents'"),
        ({"text": "a", "texts": ["a"]}, "give one of"),
        ({"text": "a", "documents": [{"text": "a"}]}, "give one of"),
        ({"texts": ["a"], "published": "2026-01-01T00:00:00Z"}, "are of one text; of several, give each its own"),
        ({"texts": ["a"], "document_id": "1"}, "are of one text"),
        ({"documents": [{"text": "a"}], "document_id": "1"}, "are of one text"),
        ({"documents": [{"text": "a"}], "topic": "oil"}, "give each of the 'documents' its own 'topic'"),
        ({"documents": []}, "documents: List should have at least 1 item"),
        ({"documents": [{"text": "a"}] * (MAX_ITEMS + 1)}, f"at most {MAX_ITEMS} items"),
        ({"documents": [{"text": " "}]}, "documents.0.text: Value error, the text is empty"),
        ({"documents": [{"topic": "oil"}]}, "documents.0.text: Field required"),
        ({"documents": ["a"]}, "documents.0: "),
        ({"documents": [{"text": "a", "id": "1"}]}, "documents.0.id: Extra inputs"),
        ({"text": "a", "document_id": "x" * (MAX_ID + 1)}, f"document_id: String should have at most {MAX_ID}"),
        ({"text": "a", "document_id": ""}, "document_id: String should have at least 1"),
        ({"text": "a", "document_id": 7}, "document_id: Input should be a valid string"),
        ({"text": "a", "topic": ""}, "topic: String should have at least 1"),
        ({"text": "a", "topic": "  "}, "topic: String should have at least 1"),
        ({"text": "a", "topic": "x" * 101}, "topic: String should have at most 100"),
        ({"text": "a", "topic": ["oil"]}, "topic: Input should be a valid string"),
    ],
)
def test_a_wrong_request_is_refused_with_its_field(request_: dict[str, Any], reason: str) -> None:
    assert reason in fault(**request_)


def test_documents_are_what_is_counted(task: Sentiment, folder: Path) -> None:
    def documents(**request: Any) -> list[Document]:
        return task.documents(*answer(task, **request), "p1", AT)

    label, earlier = task.labels[0], datetime(2025, 1, 2, tzinfo=UTC)
    [plain] = documents(text="Crude slips")
    assert plain == Document("p1/0", "Crude slips", AT, ("oil",), label, 1.0, "p1", AT)
    [given] = documents(text="a", topic="shops", published="2025-01-02T00:00:00Z", document_id="w1")
    assert given == Document("w1", "a", earlier, ("shops",), label, 1.0, "p1", AT)
    several = documents(
        documents=[{"text": "a", "document_id": "w1"}, {"text": "b", "published": "2025-01-02T00:00:00Z"}]
    )
    assert [(one.document_id, one.text, one.published, one.topics) for one in several] == [
        ("w1", "a", AT, ("other",)), ("p1/1", "b", earlier, ("other",))
    ]  # fmt: skip
    assert [one.document_id for one in documents(texts=["a", "b"])] == ["p1/0", "p1/1"]
    intent = Intent(Bundle.open(folder / "bundle"))
    request = intent.Request.model_validate({"text": "a"})
    assert intent.documents(request, [{"label": "a", "score": 1.0}], "p1", AT) == []


def test_net_opinion_is_of_stories() -> None:
    assert Counts().net == 0.0
    assert Counts(texts=90, negative=90, stories=4, story_positive=1, story_negative=3).net == -0.5


def infer(**tensors: Sequence[str]) -> dict[str, Any]:
    inputs = [{"name": name, "shape": [len(data)], "datatype": "BYTES", "data": data} for name, data in tensors.items()]
    return oip.parse_infer(Sentiment, orjson.dumps({"inputs": inputs}), None).request


def test_tensors_give_texts_or_documents() -> None:
    assert infer(text=["a", "b"]) == {"texts": ["a", "b"]}
    assert infer(text=["a", "b"], topic=[]) == {"texts": ["a", "b"]}
    given = infer(text=["a", "b"], topic=["", "oil"], published=["2026-01-01T00:00:00Z", ""], document_id=["1", "2"])
    assert given == {
        "documents": [
            {"text": "a", "published": "2026-01-01T00:00:00Z", "document_id": "1"},
            {"text": "b", "topic": "oil", "document_id": "2"},
        ]
    }
    SentimentRequest.model_validate(given)
    with pytest.raises(ValueError, match="'topic' has 1 elements, and 'text' has 2"):
        Sentiment.request_from_tensors({"text": ["a", "b"], "topic": ["x"]})


def test_the_tensor_of_topics_has_a_json_list_for_each_text(task: Sentiment) -> None:
    _, predictions = answer(task, texts=["crude and 美元 greenback", "a"])
    columns = Sentiment.tensors_from_predictions(predictions)
    assert [orjson.loads(value) for value in columns["topics"]] == [["oil", "US dollar"], ["other"]]
