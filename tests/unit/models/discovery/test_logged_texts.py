"""What is read of a log: each text once, without what people have labelled."""

from __future__ import annotations

from datetime import timedelta

import pytest

from models.discovery.logged_texts import MAX_TEXTS, LabelledTexts, different_texts, uncertainty
from models.feedback.store.label_join import key_of_text
from models.feedback.types import GivenLabel
from tests.helpers.store_fixtures import NOW, made, prediction


def label(text: str | None = None, number: int | None = None, index: int = 0, source: str = "agent") -> GivenLabel:
    id_ = made(number) if number is not None else None
    key = key_of_text("intent", id_, index, source) if id_ else b""
    return GivenLabel(key, source, "cancel", id_, text, None, True)


def labelled(*labels: GivenLabel) -> LabelledTexts:
    return LabelledTexts("intent", labels)


def test_a_text_is_there_once_with_its_newest_prediction_and_its_count() -> None:
    newest, older = prediction(2, "Where is it?", version="2"), prediction(1, "where is  it?", "what?", version="1")
    found = different_texts([newest, older], labelled())
    assert [(text.id, text.index, text.text, text.version, text.times) for text in found] == [
        (made(2), 0, "Where is it?", "2", 2),
        (made(1), 1, "what?", "1", 1),
    ]


def test_what_is_labelled_by_its_prediction_is_gone_however_the_label_came() -> None:
    rows = [prediction(3, "a", "b"), prediction(2, "c"), prediction(1, "B", "a")]
    without_consent = label(None, 3, 1)
    assert [t.text for t in different_texts(rows, labelled(without_consent))] == ["a", "c"]
    assert [t.text for t in different_texts(rows, labelled(label("c", 2), label("b", 3, 1)))] == ["a"]
    assert [t.text for t in different_texts(rows, labelled(label(" C ")))] == ["a", "b"]
    of_another = label(None, 9, 0)
    assert len(different_texts(rows, labelled(of_another))) == 3


def test_a_text_is_new_when_it_was_first_asked_after_the_champion_was_made() -> None:
    rows = [prediction(3, "new"), prediction(2, "old"), prediction(1, "old", at=NOW - timedelta(days=2))]
    found = different_texts(rows, labelled(), NOW - timedelta(days=1))
    assert [(text.text, text.new) for text in found] == [("new", True), ("old", False)]


def test_a_long_log_is_read_to_its_bound() -> None:
    read = 0

    def endless() -> object:
        nonlocal read
        while True:
            read += 1
            yield prediction(read, *(f"{read} {i}" for i in range(100)))

    assert len(different_texts(endless(), labelled())) == MAX_TEXTS  # type: ignore[arg-type]
    assert read == MAX_TEXTS / 100


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"label": "a", "score": 0.9}, 0.2),
        ({"label": "a", "score": 0.3}, 1.0),
        ({"label": "a", "score": 0.6, "top_k": [{"label": "a", "score": 0.6}, {"label": "b", "score": 0.5}]}, 0.9),
        ({"label": "a", "score": 0.6, "top_k": [{"label": "a", "score": 0.6}]}, 0.8),
        ({"label": "a", "score": 0.5, "scores": {"c": 0.1, "a": 0.5, "b": 0.4}}, 0.9),
    ],
)
def test_uncertainty_is_the_margin_that_is_missing(answer: dict[str, object], expected: float) -> None:
    assert uncertainty(answer) == pytest.approx(expected)
