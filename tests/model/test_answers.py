"""An answer never depends on its batch-mates, and the shipped models are as good as their manifests say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from export.bundle import Bundle, Kind
from export.heads import head_of, softmax
from export.model import Model
from export.parity import BATCHES, run_in_random_batches
from export.session import OnnxSession
from models.data.dataset import Dataset, load_dataset
from models.data.interaction_files import load_interactions
from models.evaluation.metrics import classifier_metrics, confidence_metrics, ranker_metrics
from models.tasks.base import all_tasks, get_task
from models.tasks.confidence import bounds_of
from models.tasks.event_names import EVENT_KINDS
from models.tasks.intent import OUT_OF_SCOPE, IntentOptions, IntentRequest

CLASSIFIERS = ("intent", "sentiment")
Outputs = NDArray[np.float32]


@pytest.fixture(scope="module", params=sorted(all_tasks()))
def session(request: pytest.FixtureRequest, bundle_of: Callable[[str], Path]) -> OnnxSession:
    return OnnxSession(Bundle.open(bundle_of(request.param)), providers="cpu")


@pytest.fixture(scope="module")
def rows(session: OnnxSession) -> list[list[int]]:
    """Token ids of the task's holdout; a ranker has no labelled texts, so its catalogue."""
    manifest = session.bundle.manifest
    if manifest.kind == "ranker":
        texts = list(load_interactions().texts)
    else:
        texts = [example.text for example in load_dataset(manifest.task).holdout]
    return [encoded.ids for encoded in session.encoder.encode(texts)]


@pytest.fixture(scope="module")
def alone(session: OnnxSession, rows: list[list[int]]) -> Outputs:
    return np.concatenate([session.run([row]) for row in rows])


def assert_same_answers(one: Outputs, other: Outputs, kind: Kind) -> None:
    if kind == "classifier":
        assert (one.argmax(1) == other.argmax(1)).all()
    else:  # what a client sees of vectors is their cosines with other vectors
        fixed = np.random.default_rng(0).normal(size=(one.shape[1], 50))
        fixed /= np.linalg.norm(fixed, axis=0)
        one, other = one @ fixed, other @ fixed
    seen = head_of(kind).scores
    np.testing.assert_allclose(seen(one), seen(other), rtol=0, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_a_text_answers_the_same_in_any_batch(
    session: OnnxSession, rows: list[list[int]], alone: Outputs, seed: int
) -> None:
    together = run_in_random_batches(session, rows, np.random.default_rng(seed))
    assert_same_answers(alone, together, session.bundle.manifest.kind)


def test_a_text_answers_the_same_beside_the_longest(
    session: OnnxSession, rows: list[list[int]], alone: Outputs
) -> None:
    """The most padding there can be."""
    longest = np.random.default_rng(0).integers(1000, 20000, session.bundle.manifest.max_length).tolist()
    some = range(0, len(rows), 20)
    beside = np.concatenate([session.run([rows[i], longest])[:1] for i in some])
    assert_same_answers(alone[list(some)], beside, session.bundle.manifest.kind)


def test_the_manifest_records_parity_for_every_shape(session: OnnxSession) -> None:
    parity = session.bundle.manifest.parity
    lengths = (1, 2, session.bundle.manifest.max_length)
    shapes = parity.max_difference_by_shape or {}
    assert set(shapes) == {f"{batch}x{length}" for batch in BATCHES for length in lengths}
    assert BATCHES == (1, 64)
    assert None not in (parity.texts, parity.max_difference, parity.max_batch_difference)
    assert all(math.isfinite(value) for value in (*shapes.values(), parity.max_difference))
    assert parity.max_batch_difference <= 1e-3
    assert parity.texts > 0


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("length", [1, 2, None], ids=["1", "2", "max_length"])
def test_every_shape_has_finite_outputs(session: OnnxSession, batch: int, length: int | None) -> None:
    output = session.run([[101] * (length or session.bundle.manifest.max_length)] * batch)
    assert output.shape[0] == batch
    assert np.isfinite(output).all()


def classify(task: str, bundle_of: Callable[[str], Path]) -> tuple[Dataset, tuple[str, ...], Outputs, Bundle]:
    bundle = Bundle.open(bundle_of(task))
    dataset = load_dataset(task)
    output = Model.open(bundle, providers="cpu").predict([example.text for example in dataset.holdout])
    return dataset, bundle.manifest.labels, output, bundle


@pytest.mark.parametrize("task", CLASSIFIERS)
def test_the_holdout_metrics_of_a_classifier_are_reproduced(task: str, bundle_of: Callable[[str], Path]) -> None:
    dataset, labels, output, bundle = classify(task, bundle_of)
    truth = [example.label for example in dataset.holdout]
    found = classifier_metrics(labels, truth, softmax(output))
    recorded = {name: value for name, value in bundle.manifest.metrics.items() if name in found}
    assert found == pytest.approx(recorded, abs=2e-3)
    assert bundle.manifest.data == dataset.lineage()
    right = np.array([labels[i] == label for i, label in zip(output.argmax(1), truth, strict=True)])
    confident = confidence_metrics(bounds_of(bundle.manifest), softmax(output), right)
    assert confident["confidence.high.precision"] >= 0.95
    assert confident["confidence.high.precision"] > confident["confidence.medium.precision"]
    assert confident["confidence.medium.precision"] > confident["confidence.low.precision"]


CHOICES = {kind.weight: name for name, kind in EVENT_KINDS.items() if kind.chosen and not kind.has_value}


def test_the_holdout_metrics_of_the_ranker_are_reproduced_by_what_serves(bundle_of: Callable[[str], Path]) -> None:
    """Requests with whole histories and known items, for which no text is read, to the task of the bundle."""
    bundle = Bundle.open(bundle_of("recommendation"))
    interactions = load_interactions()
    task = get_task("recommendation")(bundle)
    events, names, texts = interactions.events, interactions.item_names, interactions.texts
    chosen: list[bool] = []
    scores: list[float] = []
    users: list[int] = []
    for user, rows in events.users():
        held_out = np.flatnonzero(events.holdout[rows]) + rows.start
        past = np.flatnonzero(~events.holdout[rows]) + rows.start
        history = [
            {"id": names[events.item[row]], "event": CHOICES[events.weight[row]] if events.chosen[row] else "view"}
            for row in past.tolist()
        ]
        shown = dict.fromkeys(events.item[held_out].tolist())
        candidates = [{"id": names[item], "text": texts[item]} for item in shown]
        request = task.Request.model_validate({"user": {"history": history}, "candidates": candidates})
        assert task.texts(request) == []
        answer = {one["id"]: one["score"] for one in task.decode(request, np.zeros((0, 0), np.float32), [])}
        scores += [answer[names[item]] for item in events.item[held_out].tolist()]
        chosen += events.chosen[held_out].tolist()
        users += [user] * len(held_out)
    metrics = bundle.manifest.metrics
    found = ranker_metrics(np.array(users), np.array(chosen), np.array(scores))
    assert found == pytest.approx({name: metrics[name] for name in found}, abs=2e-3)
    assert metrics["auc"] > metrics["popularity_auc"]
    assert bundle.manifest.data == interactions.lineage()


def served_labels(task: str, bundle: Bundle, texts: Sequence[str], output: Outputs) -> list[str]:
    task_ = get_task(task)(bundle)
    request = task_.Request.model_validate({"texts": list(texts)})
    return [answer["label"] for answer in task_.decode(request, task_.activate(output), [False] * len(texts))]


def test_intent_is_right_about_what_is_in_scope(bundle_of: Callable[[str], Path]) -> None:
    dataset, _, output, bundle = classify("intent", bundle_of)
    labels = served_labels("intent", bundle, [example.text for example in dataset.holdout], output)
    right = [
        label == example.label
        for label, example in zip(labels, dataset.holdout, strict=True)
        if example.label != OUT_OF_SCOPE
    ]
    assert sum(right) / len(right) >= 0.92


def test_sentiment_reaches_its_floor(bundle_of: Callable[[str], Path]) -> None:
    dataset, labels, output, _ = classify("sentiment", bundle_of)
    metrics = classifier_metrics(labels, [example.label for example in dataset.holdout], softmax(output))
    assert metrics["macro_f1"] >= 0.75


def test_an_unsure_answer_names_the_known_question_that_the_model_sees_most_like_the_text(
    bundle_of: Callable[[str], Path],
) -> None:
    bundle = Bundle.open(bundle_of("intent"))
    known = bundle.asset("known_questions")
    session = OnnxSession(bundle, providers="cpu")
    texts = ["my parcel", "the thing with the money", "qwerty uiop", "hello there", known["texts"][3]]
    logits = session.predict(texts)
    task = get_task("intent")(bundle, IntentOptions(handoff_below=1.0, nearest_above=-1.0))
    predictions = task.decode(IntentRequest(texts=texts), task.activate(logits), [False] * len(texts))
    compared = 0
    for prediction, row in zip(predictions, logits, strict=True):
        if prediction["label"] == OUT_OF_SCOPE:
            assert "nearest" not in prediction
            continue
        cosines = np.array([np.corrcoef(row, of_known)[0, 1] for of_known in known["logits"]])
        assert known["texts"].index(prediction["nearest"]["question"]) in np.flatnonzero(cosines > cosines.max() - 1e-5)
        assert prediction["nearest"]["similarity"] == pytest.approx(cosines.max(), abs=1e-5)
        compared += 1
    assert compared >= 2
    sure = get_task("intent")(bundle, IntentOptions(handoff_below=1.0, nearest_above=1.0))
    assert not any(
        "nearest" in one for one in sure.decode(IntentRequest(texts=texts[:4]), sure.activate(logits[:4]), [False] * 4)
    )


def test_the_nearest_question_does_not_depend_on_who_else_is_in_the_batch(bundle_of: Callable[[str], Path]) -> None:
    bundle = Bundle.open(bundle_of("intent"))
    texts = [
        "my parcel",
        "where is my order",
        "the thing with the money",
        *bundle.asset("known_questions")["texts"][:40],
    ]
    logits = OnnxSession(bundle, providers="cpu").predict(texts)
    task = get_task("intent")(bundle, IntentOptions(handoff_below=0.9, nearest_above=-1.0))
    together = task.decode(IntentRequest(texts=texts), task.activate(logits), [False] * len(texts))
    alone = [
        task.decode(IntentRequest(text=text), task.activate(row[None]), [False])[0]
        for text, row in zip(texts, logits, strict=True)
    ]
    assert alone == together
    assert {"nearest" in one for one in together} == {True, False}
