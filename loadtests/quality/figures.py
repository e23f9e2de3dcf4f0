"""From answers to figures: accuracy, calibration, out of scope, each with a 95 % interval over the texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.metrics import calibration_error, user_aucs

OUT_OF_SCOPE = "out_of_scope"
BINS = 15
"""of the calibration error, as in training's metric and in publications"""
RESAMPLES = 1000
_Z = 1.959964  # of the normal distribution, for 95 %
_REASONS = (None, "out_of_scope", "low_confidence")  # a text that asks for a person is in scope
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Answers:
    """What one version answered to labelled texts: arrays (texts,), in the order of the file."""

    truth: NDArray[Any]
    label: NDArray[Any]
    score: Floats
    """of the label"""
    in_scope: Floats
    """the highest score of a label other than out_of_scope"""
    handed: Bools
    """to a person, as out of scope or unsure"""
    early: Bools
    """answered by the linear reader alone"""
    confidence: NDArray[np.str_]
    """high, medium, low; empty where the version does not say"""

    @classmethod
    def of(cls, truth: Sequence[str], predictions: Sequence[Mapping[str, Any]]) -> Answers:
        """From the predictions that a server gave with `details`."""
        return cls(
            np.array(truth),
            np.array([one["label"] for one in predictions]),
            np.array([one["score"] for one in predictions], np.float64),
            np.array([_highest_in_scope(one) for one in predictions], np.float64),
            np.array([bool(one.get("handoff")) and one.get("reason") in _REASONS for one in predictions]),
            np.array([one.get("stages") == ["linear"] for one in predictions]),
            np.array([one.get("confidence", "") for one in predictions]),
        )

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def right(self) -> Bools:
        found: Bools = self.truth == self.label
        return found

    def take(self, rows: NDArray[Any]) -> Answers:
        """Those with these numbers, or where a mask is true."""
        return Answers(*(getattr(self, field.name)[rows] for field in fields(self)))


def _highest_in_scope(prediction: Mapping[str, Any]) -> float:
    listed = [(one["label"], one["score"]) for one in prediction.get("top_k", ())]
    scores = [score for label, score in listed if label != OUT_OF_SCOPE]
    return max(scores, default=0.0) if listed else float(prediction["score"])


@dataclass(frozen=True)
class Figure:
    """The mean over the runs of a section, one a seed, with its 95 % interval over the texts."""

    name: str
    """as training's metrics and the bounds name it"""
    value: float
    low: float
    high: float
    texts: int
    by_run: list[float]


def classification(runs: Sequence[Answers]) -> list[Figure]:
    """How many labels are right, whether their scores can be believed, and how many texts are answered early."""
    figures = [
        share("accuracy", [run.right for run in runs]),
        resampled("macro_f1", [_numbered(run) for run in runs], _macro_f1),
        resampled("calibration_error", runs, calibration),
        chance_error(runs),
        share("early.share", [run.early for run in runs]),
    ]
    for word in ("high", "medium", "low"):
        of_word = [run.confidence == word for run in runs]
        if not any(each.any() for each in of_word):
            continue
        figures.append(share(f"confidence.{word}.share", of_word))
        right = [run.right[each] for run, each in zip(runs, of_word, strict=True) if each.any()]
        figures.append(share(f"confidence.{word}.precision", right))
    return figures


def out_of_scope(runs: Sequence[Answers], outside: Sequence[Bools]) -> list[Figure]:
    """Whether texts out of scope are handed to a person and the others are not. `outside` are masks, one a run."""
    marked = [
        replace(run, truth=np.where(mask, OUT_OF_SCOPE, run.truth)) for run, mask in zip(runs, outside, strict=True)
    ]
    inside = [run.take(run.truth != OUT_OF_SCOPE) for run in marked]
    return [
        share("in_scope.kept", [~run.handed for run in inside]),
        share("out_of_scope.caught", [run.handed[run.truth == OUT_OF_SCOPE] for run in marked]),
        resampled("balanced", marked, balanced),
        resampled("auroc", marked, auroc),
    ]


def macro_f1(answers: Answers) -> float:
    """As training's metric of this name."""
    return _macro_f1(_numbered(answers))


def _macro_f1(answers: Answers) -> float:
    """Of labels that are numbers from 0. sklearn's takes 4 ms, of which a bootstrap needs thousands."""
    labels = int(max(answers.truth.max(), answers.label.max())) + 1
    found = np.bincount(answers.truth, minlength=labels) + np.bincount(answers.label, minlength=labels)
    hits = np.bincount(answers.truth[answers.right], minlength=labels)
    return float((2 * hits[found > 0] / found[found > 0]).mean())


def _numbered(answers: Answers) -> Answers:
    """With a number instead of each label."""
    _, numbers = np.unique(np.concatenate([answers.truth, answers.label]), return_inverse=True)
    return replace(answers, truth=numbers[: len(answers)], label=numbers[len(answers) :])


def calibration(answers: Answers) -> float:
    """The expected calibration error, as training's metric of this name."""
    return calibration_error(answers.score.astype(np.float32), answers.right, BINS)


def balanced(answers: Answers) -> float:
    """The mean of the shares that are caught out of scope and kept in scope."""
    outside = answers.truth == OUT_OF_SCOPE
    return float((answers.handed[outside].mean() + (~answers.handed[~outside]).mean()) / 2)


def auroc(answers: Answers) -> float:
    """How often a text in scope has a higher score of an intent than one out of scope."""
    return float(user_aucs(np.zeros(len(answers), np.int64), answers.truth != OUT_OF_SCOPE, answers.in_scope)[0])


def share(name: str, hits: Sequence[Bools]) -> Figure:
    """The mean share of hits. Wilson's interval, of as many texts as a run has: the runs are asked the same texts."""
    by_run = [float(each.mean()) for each in hits]
    value, texts = float(np.mean(by_run)), round(float(np.mean([len(each) for each in hits])))
    return Figure(name, value, *wilson(value, texts), texts, by_run)


def wilson(value: float, texts: int) -> tuple[float, float]:
    """The 95 % interval of a share of `texts` (Wilson, 1927, https://doi.org/10.1080/01621459.1927.10502953)."""
    spread = _Z**2 / texts
    middle = (value + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(value * (1 - value) / texts + spread / (4 * texts)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def resampled(name: str, runs: Sequence[Answers], statistic: Callable[[Answers], float]) -> Figure:
    """The mean of a statistic. The basic bootstrap interval over texts; the runs were asked the same, or as many.

    The basic one subtracts the bias of a statistic that chance makes larger, as it does a calibration error.
    """
    by_run = [statistic(run) for run in runs]
    value, draw = float(np.mean(by_run)), np.random.default_rng(0)
    texts, drawn = len(runs[0]), list[float]()
    for _ in range(RESAMPLES):
        rows = draw.integers(texts, size=texts)
        drawn.append(float(np.mean([statistic(run.take(rows)) for run in runs])))
    lower, upper = np.quantile(drawn, (0.025, 0.975)).tolist()
    return Figure(name, value, max(0.0, 2 * value - upper), min(1.0, 2 * value - lower), texts, by_run)


def chance_error(runs: Sequence[Answers]) -> Figure:
    """The calibration error that exact scores, the same ones, would have by chance: its mean and its 95 % range."""
    draw, means = np.random.default_rng(0), list[list[float]]()
    for run in runs:
        confidence = run.score.astype(np.float32)
        means.append([calibration_error(confidence, draw.random(len(run)) < run.score, BINS) for _ in range(RESAMPLES)])
    drawn = np.array(means).mean(0)
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    by_run = [float(np.mean(each)) for each in means]
    return Figure("calibration_error.by_chance", float(drawn.mean()), low, high, len(runs[0]), by_run)


def reliability(answers: Answers) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """Mean score, share of right answers and number of answers of each of the BINS that has any."""
    which = np.minimum((answers.score * BINS).astype(np.intp), BINS - 1)
    counts = np.bincount(which, minlength=BINS)
    some = counts > 0
    scores = np.bincount(which, answers.score, BINS)[some] / counts[some]
    right = np.bincount(which, answers.right, BINS)[some] / counts[some]
    return scores, right, counts[some]


def coverage_curve(answers: Answers) -> tuple[Floats, Floats]:
    """Share of texts answered, surest first, and accuracy of those; texts of one score come together."""
    order = np.argsort(-answers.score, kind="stable")
    last = np.r_[np.diff(answers.score[order]) != 0, True]
    counts = np.arange(1, len(answers) + 1)
    return (counts / len(answers))[last], (np.cumsum(answers.right[order]) / counts)[last]


def scope_curve(answers: Answers, outside: Bools) -> tuple[Floats, Floats]:
    """By bound on the score of the best intent: the share in scope that is kept, and out of scope that is caught."""
    bounds = np.unique(answers.in_scope)
    inside, others = np.sort(answers.in_scope[~outside]), np.sort(answers.in_scope[outside])
    kept = 1 - np.searchsorted(inside, bounds) / len(inside)
    caught = np.searchsorted(others, bounds) / len(others)
    return kept, caught
