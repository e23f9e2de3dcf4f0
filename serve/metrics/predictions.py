"""What the models of one replica answered: labels, scores, confidence and handoffs, by version.

Counted in plain dicts by the event loop alone, and turned into samples at a scrape: prometheus-client's own collectors
take a lock for each number, and a request may have thousands of texts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from math import isfinite
from typing import TYPE_CHECKING, Any

from serve.metrics.metric import TASK, VERSION, Metric, process_registry

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

MAX_LABELS = 100
OTHER = "other"
SCORES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
CONFIDENCE = ("high", "medium", "low")
REASONS = ("out_of_scope", "low_confidence", "asked_for_person")

PREDICTIONS = Metric(
    "flywheel_predictions_total",
    "counter",
    "Predicted labels of a classifier, one a text.",
    {"task": TASK, "version": VERSION, "label": f"one of the first {MAX_LABELS} labels of the version, or `{OTHER}`"},
)
SCORE = Metric(
    "flywheel_prediction_score",
    "histogram",
    "Score of a classifier's label, one a text; of a ranking, that of its first item.",
    {"task": TASK, "version": VERSION},
    SCORES,
)
CONFIDENCES = Metric(
    "flywheel_prediction_confidence_total",
    "counter",
    "Predictions of a classifier by confidence.",
    {"task": TASK, "version": VERSION, "confidence": "high, medium, low"},
)
HANDOFFS = Metric(
    "flywheel_handoffs_total",
    "counter",
    "Texts that a person should answer, by reason.",
    {"task": TASK, "version": VERSION, "reason": f"{', '.join(REASONS)}; `{OTHER}` of a task of your own"},
)
METRICS = (PREDICTIONS, SCORE, CONFIDENCES, HANDOFFS)


class _Tally:
    """The counts of one version, which has these labels."""

    __slots__ = ("confidence", "handoffs", "labels", "named", "score_sum", "scores")

    def __init__(self, labels: Sequence[str]):
        self.named = frozenset(labels[:MAX_LABELS])
        self.labels: dict[str, int] = {}
        self.scores = [0] * (len(SCORES) + 1)
        self.score_sum = 0.0
        self.confidence = dict.fromkeys(CONFIDENCE, 0)
        self.handoffs: dict[str, int] = {}

    def score(self, score: float) -> None:
        if not isfinite(score):  # of a broken model: JSON, in which processes send their counts, cannot hold the sum
            return
        self.scores[bisect_left(SCORES, score)] += 1
        self.score_sum += score


class PredictionCounts:
    """A collector of prometheus-client. Call `count` and `forget` on one thread."""

    def __init__(self, task: str, registry: CollectorRegistry | None = None):
        self._task = task
        self._tallies: dict[str, _Tally] = {}
        (registry or process_registry()).register(self)

    def count(self, version: str, labels: Sequence[str], predictions: Sequence[Mapping[str, Any]]) -> None:
        """Count the predictions of one answer. `labels` are the version's, none for a ranker."""
        if (tally := self._tallies.get(version)) is None:
            tally = self._tallies[version] = _Tally(labels)
        if not labels:
            if predictions:
                tally.score(predictions[0]["score"])
            return
        for prediction in predictions:
            label = prediction["label"] if prediction["label"] in tally.named else OTHER
            tally.labels[label] = tally.labels.get(label, 0) + 1
            tally.score(prediction["score"])
            if (confidence := prediction.get("confidence")) in tally.confidence:
                tally.confidence[confidence] += 1
            if prediction.get("handoff"):
                reason = prediction.get("reason")
                reason = reason if reason in REASONS else OTHER
                tally.handoffs[reason] = tally.handoffs.get(reason, 0) + 1

    def forget(self, version: str) -> None:
        self._tallies.pop(version, None)

    def describe(self) -> list[Any]:
        return [metric.samples() for metric in METRICS]

    def collect(self) -> Iterator[Any]:
        labels, scores, confidences, handoffs = families = self.describe()
        for version, tally in list(self._tallies.items()):
            of = [self._task, version]
            for label, count in list(tally.labels.items()):
                labels.add_metric([*of, label], count)
            counts = list(accumulate(tally.scores))
            scores.add_metric(of, list(zip([*map(str, SCORES), "+Inf"], counts, strict=True)), tally.score_sum)
            if tally.labels:
                for confidence, count in tally.confidence.items():
                    confidences.add_metric([*of, confidence], count)
            for reason, count in list(tally.handoffs.items()):
                handoffs.add_metric([*of, reason], count)
        yield from families
