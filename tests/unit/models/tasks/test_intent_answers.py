"""What intent answers beside its label: entities, a filled answer and what it lacks, whoever else asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundle import Bundle
from models.tasks.base import Prediction
from models.tasks.intent import Intent, IntentOptions, IntentRequest
from tests.helpers.tiny_readers import LABELS, tiny_bundle

LOGITS = dict(zip(LABELS, 9 * np.eye(len(LABELS), dtype=np.float32), strict=True))
URL = {"orders_url": "https://shop.example/orders"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("intent")
    tiny_bundle(folder / "bundle", encoder=False)
    return folder


def answers(folder: Path, label: str, options: dict[str, Any], **request: Any) -> list[Prediction]:
    task = Intent(Bundle.open(folder / "bundle"), IntentOptions.model_validate(options))
    validated = IntentRequest.model_validate(request)
    texts = task.texts(validated)
    return task.decode(validated, task.activate(np.stack([LOGITS[label]] * len(texts))), [False] * len(texts))


def test_the_answer_is_filled_from_the_text(folder: Path) -> None:
    (prediction,) = answers(folder, "track_order", {"defaults": URL}, text="where is my order #88231?")
    assert prediction["entities"] == [{"type": "order_id", "value": "88231", "start": 19, "end": 24}]
    assert prediction["answer"] == (
        "You can see where order 88231 is, with its tracking number, under https://shop.example/orders."
    )
    assert "missing" not in prediction


def test_what_the_request_gives_wins_and_what_lacks_is_named(folder: Path) -> None:
    (prediction,) = answers(folder, "track_order", {}, text="where is order 88231?", slots={"order_id": "A-1"})
    assert prediction["answer"].startswith("You can see where order A-1 is,")
    assert prediction["missing"] == ["orders_url"]
    assert prediction["entities"][0]["value"] == "88231"


def test_a_text_without_entities_has_an_answer_without_them(folder: Path) -> None:
    (prediction,) = answers(folder, "track_order", {"defaults": URL}, text="where is it?")
    assert "entities" not in prediction
    assert prediction["answer"].startswith("You can see where your order is,")


def test_a_person_answers_what_is_handed_off(folder: Path) -> None:
    (prediction,) = answers(folder, "out_of_scope", {}, text="order 88231 of a pizza")
    assert prediction["handoff"]
    assert "answer" not in prediction
    assert prediction["entities"][0]["value"] == "88231"


def test_alone_and_among_others_a_text_has_the_same_answer(folder: Path) -> None:
    (folder / "answers.yaml").write_text(
        "answers: {track_order: ['One {order_id}', 'Two {order_id}', 'Three {order_id}', 'Four']}", encoding="utf-8"
    )
    options = {"answers": str(folder / "answers.yaml")}
    texts = [f"where is order {number}?" for number in range(500, 540)] + ["where is it?"]
    together = answers(folder, "track_order", options, texts=texts)
    assert [answers(folder, "track_order", options, text=text)[0] for text in texts] == together
    assert {prediction["answer"].split()[0] for prediction in together} == {"One", "Two", "Three", "Four"}
    assert together[-1]["answer"] == "Four"


def test_the_language_of_the_request(folder: Path) -> None:
    (folder / "de.yaml").write_text("answers: {track_order: {en: Here., de: 'Nr. {order_id}.'}}", encoding="utf-8")
    options = {"answers": str(folder / "de.yaml")}
    text = "wo ist Bestellung 88231?"
    assert answers(folder, "track_order", options, text=text, language="de-CH")[0]["answer"] == "Nr. 88231."
    assert answers(folder, "track_order", options, text=text)[0]["answer"] == "Here."


def test_both_can_be_switched_off(folder: Path) -> None:
    text = "where is order 88231?"
    (prediction,) = answers(folder, "track_order", {"entities": False, "answers": False}, text=text)
    assert not {"entities", "answer", "missing"} & prediction.keys()
    (prediction,) = answers(folder, "track_order", {"entities": False}, text=text, slots={"order_id": "7"})
    assert prediction["answer"].startswith("You can see where order 7 is")


def test_words_of_a_deployment(folder: Path) -> None:
    (folder / "entities.yaml").write_text("types: {product: {words: [Trail Mug]}}", encoding="utf-8")
    (prediction,) = answers(folder, "track_order", {"entities": str(folder / "entities.yaml")}, text="my trail mugs")
    assert prediction["entities"] == [{"type": "product", "value": "Trail Mug", "start": 3, "end": 12}]


def test_what_is_logged_of_an_answer_has_none_of_it(folder: Path) -> None:
    """The log keeps the outputs' fields alone."""
    (prediction,) = answers(folder, "track_order", {}, text="where is order 88231?")
    assert not {tensor.name for tensor in Intent.outputs} & {"answer", "entities", "missing", "slots"}
    assert {tensor.name for tensor in Intent.outputs if not tensor.optional} <= prediction.keys()
