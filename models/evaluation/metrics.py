"""Metrics of classifiers and rankers on held-out examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, recall_score, roc_auc_score

from export.model import Parts

CONFIDENCE_BINS = 10
"""of the gate, whose error rates were measured with so many: docs/decisions/0013-gate.md"""
_PUBLISHED_BINS = 15  # of the metric, as in publications


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
        "calibration_error": round(calibration_error(probabilities.max(1), right, _PUBLISHED_BINS), 4),
    }


def reader_metrics(labels: Sequence[str], truth: Sequence[str], parts: Parts) -> dict[str, float]:
    """Each reader's own accuracy and macro-F1; the early answers' share, accuracy and agreement with the blend."""
    numbers = {label: i for i, label in enumerate(labels)}
    true = np.array([numbers.get(label, -1) for label in truth])
    metrics = {}
    for name, logits in (("encoder", parts.encoder), ("linear", parts.linear)):
        answers = logits.argmax(1)
        metrics[f"{name}.accuracy"] = round(float((answers == true).mean()), 4)
        metrics[f"{name}.macro_f1"] = round(float(f1_score(true, answers, average="macro", zero_division=0.0)), 4)
    early = parts.early
    metrics["early.share"] = round(float(early.mean()), 4)
    if early.any():
        answers = parts.linear[early].argmax(1)
        metrics["early.accuracy"] = round(float((answers == true[early]).mean()), 4)
        metrics["early.agreement"] = round(float((answers == parts.blended[early].argmax(1)).mean()), 4)
    return metrics


def confidence_bins(confidence: NDArray[np.float32], bins: int = CONFIDENCE_BINS) -> NDArray[np.intp]:
    """Which of `bins` equal-width bins each confidence, from 0 to 1, falls in: (examples,)."""
    found: NDArray[np.intp] = np.minimum((confidence * bins).astype(np.intp), bins - 1)
    return found


def calibration_error(confidence: NDArray[np.float32], right: NDArray[np.bool_], bins: int = CONFIDENCE_BINS) -> float:
    """Expected calibration error over equal-width bins (Guo et al., 2017, https://arxiv.org/abs/1706.04599)."""
    which = confidence_bins(confidence, bins)
    gaps = [
        (which == b).mean() * abs(right[which == b].mean() - confidence[which == b].mean())
        for b in range(bins)
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
