"""Run a bundle on a labelled set: its predictions, its defects, its parity, its latency against another bundle."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.bundle import Bundle
from export.heads import head_of, moves_too_many_labels, softmax
from export.model import Model, Parts
from export.providers import Providers
from models.data.histories import histories_of
from models.data.interactions import Interactions
from models.tasks.ranker import Candidates, Past, Ranker, named

_TIMED_TEXTS = 8
_MIN_FOR_CONSTANT = 20  # texts; fewer may well all get one label
_INVARIANCE_TEXTS = 64
_CONTEXT_ROWS = 100_000  # at a time: the item vectors of millions of events would take gigabytes


class DefectError(Exception):
    """Raised when a bundle cannot be evaluated at all; the message says why, as the end of a sentence."""


@dataclass(frozen=True)
class Evaluation:
    """The predictions of one bundle on one labelled set. `probabilities` should be (len(truth), len(labels)).

    `shown_as` is how a report shows each example; empty when a report may not show them. `parts` are what a model of
    two readers makes its predictions of; None for one reader.
    """

    labels: tuple[str, ...]
    truth: tuple[str, ...]
    probabilities: NDArray[np.float32]
    shown_as: tuple[str, ...] = ()
    parts: Parts | None = None

    def unusable(self) -> str | None:
        """Why these outputs are no predictions (shape, NaN), as the end of a sentence; None when they are valid."""
        expected = (len(self.truth), len(self.labels))
        if self.probabilities.shape != expected:
            return f"its output has the shape {self.probabilities.shape}, not {expected}"
        wrong = int((~np.isfinite(self.probabilities)).any(1).sum())
        return f"its scores for {wrong} of {len(self.truth)} texts are not finite numbers" if wrong else None

    def defect(self) -> str | None:
        """As `unusable`, or that the model predicts one label for everything although most examples have another."""
        if defect := self.unusable():
            return defect
        always = self.predicted[0] if len(set(self.predicted)) == 1 else None
        if len(self.truth) >= _MIN_FOR_CONSTANT and always and self.truth.count(always) * 2 < len(self.truth):
            return f"it answers {always!r} whatever the text"
        return None

    @cached_property
    def predicted(self) -> tuple[str, ...]:
        return tuple(self.labels[i] for i in self.probabilities.argmax(1)) if self.truth else ()

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """(examples,): whether the prediction is correct. With a true label that the bundle lacks, it never is."""
        return np.fromiter(map(str.__eq__, self.predicted, self.truth), bool, len(self.truth))

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """(examples,): the probability of the predicted label, from 0 to 1."""
        return self.probabilities.max(1) if self.truth else np.zeros(0, np.float32)

    @property
    def accuracy(self) -> float:
        return float(self.right.mean()) if self.truth else 0.0

    def of_label(self, label: str) -> NDArray[np.bool_]:
        """(examples,): whether the true label is `label`."""
        numbers, of_examples = self._truth
        marked: NDArray[np.bool_] = of_examples == numbers.get(label, -1)
        return marked

    @cached_property
    def _truth(self) -> tuple[dict[str, int], NDArray[np.intp]]:
        """The number of each true label, and (examples,): that of each example. Strings are slow to compare."""
        numbers: dict[str, int] = {}
        found = [numbers.setdefault(label, len(numbers)) for label in self.truth]
        return numbers, np.array(found, np.intp)


@dataclass(frozen=True)
class RankerEvaluation:
    """The scores of one bundle for the held-out events, and whether the user chose; all are (events,)."""

    users: NDArray[np.int64]
    """numbers from 0"""
    chosen: NDArray[np.bool_]
    scores: NDArray[np.float64]

    def defect(self) -> str | None:
        """Why these scores are unusable, as the end of a sentence; None when they are valid."""
        if self.scores.shape != self.users.shape:
            return f"its scores have the shape {self.scores.shape}, not {self.users.shape}"
        if not np.isfinite(self.scores).all():
            return "some of its scores are not finite numbers"
        if len(self.users) > 1 and np.ptp(self.scores) == 0:
            return "it gives every item the same score"
        return None


def open_model(path: Path, providers: Providers = "auto") -> Model:
    """The model of the bundle at `path`, as a replica opens it. Raises DefectError for any failure."""
    try:
        return Model.open(Bundle.open(path), providers=providers)
    except Exception as error:  # BundleError, and a dozen types of onnxruntime and the tokenizer
        raise DefectError(f"it cannot be loaded: {_first_line(error)}") from error


def evaluate_bundle(
    model: Model, texts: Sequence[str], truth: Sequence[str], shown_as: Sequence[str] = ()
) -> Evaluation:
    """Run the exported model once over `texts`. Raises DefectError when it fails on them."""
    labels = model.bundle.manifest.labels
    if not texts:
        return Evaluation(labels, (), np.zeros((0, len(labels)), np.float32))
    try:
        output, parts = model.outputs(texts)
    except Exception as error:  # onnxruntime raises a dozen types
        raise DefectError(f"it fails on the texts: {_first_line(error)}") from error
    with np.errstate(invalid="ignore", over="ignore"):
        probabilities = softmax(output) if output.ndim == 2 else output
    return Evaluation(labels, tuple(truth), probabilities, tuple(shown_as), parts)


def evaluate_ranker(model: Model, interactions: Interactions) -> RankerEvaluation:
    """Score the held-out events of a bundle's ranker as the server would. Raises DefectError."""
    try:
        return score_holdout(Ranker.of_bundle(model.bundle), model, interactions)
    except Exception as error:  # from onnxruntime, or from weights that do not fit
        raise DefectError(f"it fails on the holdout: {_first_line(error)}") from error


def score_holdout(ranker: Ranker, model: Model, interactions: Interactions) -> RankerEvaluation:
    """The scores of the held-out events, each with its user's history outside the holdout.

    `model` reads the texts of items that the ranker does not know.
    """
    events, names = interactions.events, interactions.item_names
    rows = ranker.rows(names)
    unknown = [interactions.texts[i] for i in np.flatnonzero(rows < 0).tolist()]
    projections = model.predict(unknown) if unknown else np.zeros((0, ranker.width), np.float32)
    numbers = [interactions.item_numbers(i) for i in range(len(names))]
    items = ranker.candidates(names, rows, projections, numbers)
    past_vectors = ranker.past(names, rows, projections, np.ones(len(names), bool), np.ones(len(names))).vectors
    past = events.take(~events.holdout & ~events.sampled)
    users = len(interactions.user_names)
    histories = histories_of(past.user, past.item, past.chosen, past.weight, users, len(names))
    judged = events.take(events.holdout)
    scores = np.empty(len(judged))
    for user, its_rows in judged.users():
        own = slice(*histories.starts[user : user + 2])
        seen = histories.item[own]
        history = Past(past_vectors[seen], histories.chosen[own], histories.weight[own], seen.tolist())
        told = named(interactions.user_feature_names, interactions.user_features[user])
        scored = judged.item[its_rows]
        candidates = Candidates(items.vectors[scored], items.terms[scored], items.features[scored], scored.tolist())
        scores[its_rows] = ranker.logits(history, candidates, told, {})
    if ranker.context.names:
        contexts = interactions.context_features[events.holdout]
        for at in range(0, len(judged), _CONTEXT_ROWS):
            part = slice(at, at + _CONTEXT_ROWS)
            values = ranker.context.columns(interactions.context_feature_names, contexts[part])
            scores[part] += ranker.context_logits(values, items.vectors[judged.item[part]])
    return RankerEvaluation(judged.user.astype(np.int64), judged.chosen, scores)


def check_parity(model: Model, texts: Sequence[str]) -> str:
    """Check parity with the checkpoint and batch invariance; a sentence about both. Raises DefectError.

    The export has measured the first and recorded it in the manifest. Batch invariance (an answer does not depend on
    the other texts of its batch) is measured again on some of `texts`.
    """
    from export.parity import MAX_BATCH_DIFFERENCE, batch_difference, run_in_random_batches

    manifest = model.bundle.manifest
    recorded = manifest.parity
    if recorded.max_batch_difference is None:
        raise DefectError("its manifest has no parity with the checkpoint: it was not made by the exporter")
    moved = recorded.labels_moved or 0.0
    if not np.isfinite(moved) or moves_too_many_labels(recorded, manifest.precision):
        raise DefectError(f"its export moved {moved:.1%} of the labels that the checkpoint gives")
    session = model.session
    if session is None:
        raise DefectError("it has no encoder")
    rows = [encoded.ids for encoded in model.encoder.encode(list(texts[:_INVARIANCE_TEXTS]))]
    try:
        alone = np.concatenate([session.run([row]) for row in rows])
        together = run_in_random_batches(session, rows, np.random.default_rng(0))
        with np.errstate(invalid="ignore", over="ignore"):
            difference = batch_difference(head_of(manifest.kind), alone, together)
    except Exception as error:  # from onnxruntime, or numpy on outputs whose shape depends on the batch
        raise DefectError(f"it fails on the texts: {_first_line(error)}") from error
    if difference > MAX_BATCH_DIFFERENCE:
        raise DefectError(f"an answer depends on its batch-mates: scores move by {difference:.4f}")
    return f"The export moved {moved:.1%} of the checkpoint's labels; an answer does not depend on its batch-mates."


def latency_ratios(champion: Model, candidate: Model, texts: Sequence[str], rounds: int = 31) -> NDArray[np.float64]:
    """The candidate's latency over the champion's on the same texts, (rounds,), tokenization included.

    The encoder reads every text, also those that would be answered early: a candidate is not slow because it answers
    fewer of them early. Empty when only the candidate has an encoder. The two take turns, so that other load on the
    machine affects both.
    """
    if champion.session is None and candidate.session is not None:
        return np.zeros(0)
    ratios = []
    for round_ in range(-2, rounds):  # the first two are warm-up
        at = max(round_, 0) * _TIMED_TEXTS
        part = [texts[i % len(texts)] for i in range(at, at + _TIMED_TEXTS)]
        seconds = {}
        for model in (champion, candidate) if round_ % 2 else (candidate, champion):
            started = time.perf_counter()
            model.run([encoded.ids for encoded in model.encoder.encode(part)])
            seconds[model] = time.perf_counter() - started
        if round_ >= 0:
            ratios.append(seconds[candidate] / seconds[champion])
    return np.array(ratios)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
