"""An answer's confidence in words: measured bounds, a version without, and one in which no score is high."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from export.bundle import Bundle, Confidence, Manifest
from models.tasks.base import get_task
from models.tasks.confidence import WITHOUT_MEASUREMENT, bounds_of
from models.tasks.intent import IntentRequest
from models.training.pipeline import confidence_notes
from tests.helpers.tiny_readers import tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "1")


def measured(manifest: Manifest, **bounds: float | None) -> Manifest:
    found = Confidence(asked_high=0.95, asked_medium=0.8, texts=600, **bounds)
    assert manifest.linear is not None
    return manifest.model_copy(update={"linear": manifest.linear.model_copy(update={"confidence": found})})


def test_scores_from_a_bound_on_have_its_word(bundle: Bundle) -> None:
    bounds = bounds_of(measured(bundle.manifest, high=0.97, medium=0.84))
    assert [bounds.word(score) for score in (1.0, 0.97, 0.9699, 0.84, 0.8399, 0.0)] == [
        "high", "high", "medium", "medium", "low", "low",
    ]  # fmt: skip


def test_a_version_without_measured_bounds_has_fixed_ones(bundle: Bundle) -> None:
    assert bounds_of(bundle.manifest) == WITHOUT_MEASUREMENT == (0.9, 0.5)


@pytest.mark.parametrize(("bounds", "words"), [({"medium": 0.7}, ["medium", "low"]), ({}, ["low", "low"])])
def test_where_no_score_is_high_enough_no_answer_is_called_so(
    bundle: Bundle, bounds: dict[str, float], words: list[str]
) -> None:
    found = bounds_of(measured(bundle.manifest, **bounds))
    assert [found.word(score) for score in (1.0, 0.6)] == words


@pytest.mark.parametrize("task", ["intent", "sentiment"])
def test_every_classifier_says_how_confident_it_is(bundle: Bundle, task: str) -> None:
    classifier = get_task(task)(bundle)
    logits = np.log(np.array([[0.95, 0.03, 0.02], [0.3, 0.6, 0.1], [0.4, 0.35, 0.25]], np.float32))
    request = classifier.Request.model_validate({"texts": ["a", "b", "c"]})
    predictions = classifier.decode(request, classifier.activate(logits), [False] * 3)
    assert [prediction["confidence"] for prediction in predictions] == ["high", "medium", "low"]
    assert classifier.tensors_from_predictions(predictions)["confidence"] == ["high", "medium", "low"]


def test_a_task_whose_predictions_lack_it_can_be_asked_over_infer(bundle: Bundle) -> None:
    intent = get_task("intent")
    bare: list[dict[str, Any]] = [{"label": "a", "score": 0.5, "handoff": False}]
    columns = intent.tensors_from_predictions(bare)
    assert (columns["confidence"], columns["reason"]) == ([""], [""])


REASONS = {
    "out_of_scope": [0.1, 0.1, 0.8],
    "low_confidence": [0.45, 0.3, 0.25],
    "asked_for_person": [0.1, 0.8, 0.1],
    None: [0.8, 0.1, 0.1],
}


@pytest.mark.parametrize("reason", REASONS)
def test_a_hand_off_has_its_reason(bundle: Bundle, reason: str | None) -> None:
    intent = get_task("intent")
    task = intent(bundle, intent.Options.model_validate({"person_labels": ["track_order"]}))
    logits = np.log(np.array([REASONS[reason]], np.float32))
    (prediction,) = task.decode(IntentRequest(text="a"), task.activate(logits), [False])
    assert prediction["handoff"] is (reason is not None)
    assert prediction.get("reason") == reason
    assert intent.tensors_from_predictions([prediction])["reason"] == [reason or ""]


def test_a_doubtful_wish_for_a_person_has_low_confidence(bundle: Bundle) -> None:
    intent = get_task("intent")
    task = intent(bundle, intent.Options.model_validate({"person_labels": ["cancel_order"]}))
    logits = np.log(np.array([REASONS["low_confidence"]], np.float32))
    (prediction,) = task.decode(IntentRequest(text="a"), task.activate(logits), [False])
    assert prediction["reason"] == "low_confidence"


def test_a_version_says_in_a_note_which_word_no_answer_gets(bundle: Bundle) -> None:
    assert not confidence_notes(bundle.manifest)
    assert not confidence_notes(measured(bundle.manifest, high=0.97, medium=0.84))
    (note,) = confidence_notes(measured(bundle.manifest, medium=0.84))
    assert "No answer has high confidence: 600 validation texts do not show" in note
    assert "right in 95%" in note
    assert "tasks.intent.confidence.high" in note
