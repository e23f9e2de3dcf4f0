"""Metrics of classifiers and rankers on held-out examples, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score, roc_auc_score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONFIDENCE_BINS = 10


def classifier_metrics(
    labels: Sequence[str], truth: Sequence[str], probabilities: NDArray[np.float32]
) -> dict[str, float]:
    """Accuracy, macro-F1, the lowest recall of any label and the expected calibration error, each from 0 to 1.

    `probabilities` is (len(truth), len(labels)).
    """
    predicted = [labels[i] for i in probabilities.argmax(1)]
    recalls = recall_score(truth, predicted, labels=sorted(set(truth)), average=None, zero_division=0.0)
    right = np.array([p == t for p, t in zip(predicted, truth, strict=True)])
    return {
        "accuracy": round(float(accuracy_score(truth, predicted)), 4),
        "macro_f1": round(float(f1_score(truth, predicted, average="macro", zero_division=0.0)), 4),
        "min_recall": round(float(np.min(recalls)), 4),
        "calibration_error": round(calibration_error(probabilities.max(1), right), 4),
    }


def confidence_bins(confidence: NDArray[np.float32]) -> NDArray[np.intp]:
    """Which of CONFIDENCE_BINS equal-width bins each confidence, from 0 to 1, falls in: (examples,)."""
    bins: NDArray[np.intp] = np.minimum((confidence * CONFIDENCE_BINS).astype(np.intp), CONFIDENCE_BINS - 1)
    return bins


def calibration_error(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    """Expected calibration error over equal-width bins (Guo et al., 2017, https://arxiv.org/abs/1706.04599)."""
    which = confidence_bins(confidence)
    gaps = [
        (which == b).mean() * abs(right[which == b].mean() - confidence[which == b].mean())
        for b in range(CONFIDENCE_BINS)
        if (which == b).any()
    ]
    return float(sum(gaps))


def ranker_metrics(users: Sequence[str], chosen: Sequence[int], scores: Sequence[float]) -> dict[str, float]:
    """AUC over all impressions, and the mean AUC within a user over users with both outcomes, if there are any."""
    rows_of_user: dict[str, list[int]] = {}
    for i, user in enumerate(users):
        rows_of_user.setdefault(user, []).append(i)
    within = [
        roc_auc_score([chosen[i] for i in rows], [scores[i] for i in rows])
        for rows in rows_of_user.values()
        if 0 < sum(chosen[i] for i in rows) < len(rows)
    ]
    metrics = {"auc": round(float(roc_auc_score(chosen, scores)), 4)}
    return {**metrics, "user_auc": round(float(np.mean(within)), 4)} if within else metrics


def confusion_figure(labels: Sequence[str], truth: Sequence[str], predicted: Sequence[str]) -> Figure:
    """The confusion matrix, each row (true label) normalized to 1, as a matplotlib figure."""
    from matplotlib.figure import Figure

    matrix = confusion_matrix(truth, predicted, labels=list(labels)).astype(float)
    matrix /= np.maximum(matrix.sum(1, keepdims=True), 1)
    side = max(4.0, 0.32 * len(labels) + 2)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes: Any = figure.subplots()
    axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=90)
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="true", title="holdout")
    for i, j in zip(*np.nonzero(matrix >= 0.005), strict=True):
        axes.text(j, i, f"{matrix[i, j]:.0%}", ha="center", va="center", fontsize=6,
                  color="white" if matrix[i, j] > 0.5 else "black")  # fmt: skip
    return figure
