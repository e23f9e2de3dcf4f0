"""Metrics of classifiers and rankers on held-out examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, recall_score, roc_auc_score

from export.model import Parts
from models.tasks.confidence import Bounds

CONFIDENCE_BINS = 10
"""of the gate, whose error rates were measured with so many: docs/decisions/0013-gate.md"""
RANKS = 10
"""of nDCG: as many items as a page shows at first"""
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


def confidence_metrics(
    bounds: Bounds, probabilities: NDArray[np.float32], right: NDArray[np.bool_]
) -> dict[str, float]:
    """The share of the answers of each confidence, and how many of them are right, each from 0 to 1.

    `probabilities` is (texts, labels), `right` (texts,).
    """
    words = np.array([bounds.word(score) for score in probabilities.max(1).tolist()])
    metrics = {}
    for word in ("high", "medium", "low"):
        of_word = words == word
        metrics[f"confidence.{word}.share"] = round(float(of_word.mean()), 4)
        if of_word.any():
            metrics[f"confidence.{word}.precision"] = round(float(right[of_word].mean()), 4)
    return metrics


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


def ranker_metrics(
    users: NDArray[np.integer[Any]], chosen: NDArray[np.bool_], scores: NDArray[np.floating[Any]]
) -> dict[str, float]:
    """AUC over all events, and the means over users of the AUC and of nDCG@10 within each user's events, if defined.

    All arguments are (events,); `users` are numbers from 0.
    """
    metrics = {"auc": float(roc_auc_score(chosen, scores))}
    for name, found in (("user_auc", user_aucs(users, chosen, scores)), ("ndcg_10", user_ndcgs(users, chosen, scores))):
        if np.isfinite(found).any():
            metrics[name] = float(np.nanmean(found))
    return {name: round(value, 4) for name, value in metrics.items()}


def popularity(
    item: NDArray[np.integer[Any]], chosen: NDArray[np.bool_], items: int, prior: float = 5.0
) -> NDArray[np.float64]:
    """(items,): the share of each item's events in which it was chosen, smoothed to the mean by `prior` events.

    The list of bestsellers, which a ranker has to beat. `item` and `chosen` are (events,).
    """
    counts = np.bincount(item, minlength=items)
    found: NDArray[np.float64] = (np.bincount(item, chosen, items) + prior * chosen.mean()) / (counts + prior)
    return found


def user_aucs(
    users: NDArray[np.integer[Any]], chosen: NDArray[np.bool_], scores: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """(users,): the AUC within each user's events, ties counting half; NaN for users without both outcomes.

    The arguments are (events,); `users` are numbers from 0. In one sort, where a call of sklearn's roc_auc_score for
    each user takes minutes for many users.
    """
    order = np.lexsort((scores, users))
    user, won = users[order], chosen[order].astype(bool)
    new = np.r_[True, (np.diff(user) != 0) | (np.diff(scores[order]) != 0)] if len(user) else np.zeros(0, bool)
    tie = np.cumsum(new) - 1
    size = np.bincount(tie)
    mean_rank = (np.cumsum(size) - (size - 1) / 2)[tie]  # over all users: those of a user follow each other
    total = np.bincount(user)
    positives = np.bincount(user, won, minlength=len(total))
    before = np.cumsum(total) - total
    ranks = np.bincount(user, won * (mean_rank - before[user]), minlength=len(total))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = (ranks - positives * (positives + 1) / 2) / (positives * (total - positives))
    return found


def user_ndcgs(
    users: NDArray[np.integer[Any]],
    chosen: NDArray[np.bool_],
    scores: NDArray[np.floating[Any]],
    at: int = RANKS,
) -> NDArray[np.float64]:
    """(users,): nDCG of the `at` events of a user with the highest scores, 0 to 1; NaN for users without both outcomes.

    The arguments are (events,); `users` are numbers from 0. A chosen item gains 1, discounted by log2(rank + 1)
    (Järvelin and Kekäläinen, 2002, https://doi.org/10.1145/582415.582418).
    """
    order = np.lexsort((-scores, users))
    user = users[order]
    total = np.bincount(user)
    before = np.cumsum(total) - total
    rank = np.arange(len(user)) - before[user]
    discount = np.where(rank < at, 1 / np.log2(rank + 2.0), 0.0)
    gained = np.bincount(user, discount * chosen[order], minlength=len(total))
    positives = np.bincount(user, chosen[order], minlength=len(total)).astype(int)
    ideal = np.r_[0.0, np.cumsum(1 / np.log2(np.arange(at) + 2.0))][np.minimum(positives, at)]
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = gained / ideal
    found[positives == total] = np.nan  # every order is as good
    return found
