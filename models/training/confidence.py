"""Choose from which scores an answer is called highly or fairly confident.

The precision at a score is estimated by a logistic regression of being right on the logit of the score (Platt, 1999),
on validation texts. A bound is the smallest score from which the lower end of its 90 % interval is as high as was asked
for: with few texts, or few errors among them, the interval is wide, and the bound higher. So it is about the least sure
answer of a band, not about the band's mean (docs/decisions/0047-confidence-and-wishes.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from export.bundle import Blend, Confidence, EarlyAnswers
from export.heads import softmax
from models.training.blend import Truth, Validation
from models.training.config import Recipe

_BELOW = 1.2816  # standard errors: one side of a 90 % interval
_CALIBRATED = np.array([0.0, 1.0])  # the weights if each score is its precision: the prior's mean, with variance 1
_SCORES = np.arange(0.01, 0.9996, 0.0005)
_NEAREST = 1e-6  # of a score to 0 and 1, whose logits are infinite

Floats = NDArray[np.float64]


def final_confidence(
    validation: Validation, blend: Blend, early: EarlyAnswers | None, labels: Sequence[str], recipe: Recipe
) -> Confidence:
    """The bounds for the answers that a server gives: early ones by the linear reader, the others by both."""
    probabilities = softmax(blend.encoder * validation.encoder + blend.linear * validation.linear)
    if early is not None:
        alone = softmax(blend.linear_alone * validation.linear)
        above = np.array([max(early.above, early.label_above.get(label, 0.0)) for label in labels])
        chosen = (alone.max(1) > above[alone.argmax(1)]) & (validation.known >= early.min_known)
        probabilities = np.where(chosen[:, None], alone, probabilities)
    return choose_confidence(probabilities, validation.truth, recipe)


def choose_confidence(probabilities: NDArray[np.floating], truth: Truth, recipe: Recipe) -> Confidence:
    """The bounds from answers to unseen texts: `probabilities`, (texts, labels), and the numbers of their labels."""
    right = probabilities.argmax(1) == truth
    at_least = _lowest_precision(probabilities.max(1).astype(np.float64), right)
    high, medium = (_bound(at_least, asked) for asked in (recipe.confidence_high, recipe.confidence_medium))
    return Confidence(
        high=high,
        medium=medium,
        asked_high=recipe.confidence_high,
        asked_medium=recipe.confidence_medium,
        texts=len(truth),
    )


def _bound(at_least: Floats, asked: float) -> float | None:
    """The smallest score from which all precisions are as high as asked; None when the highest score's is not."""
    below = np.flatnonzero(at_least < asked)
    first = below[-1] + 1 if below.size else 0
    return round(float(_SCORES[first]), 4) if first < at_least.size else None


def _lowest_precision(score: Floats, right: NDArray[np.bool_]) -> Floats:
    """The lower end of the interval of the precision at each of `_SCORES` up to the highest `score`."""
    features = _features(score)

    def loss(weights: Floats) -> tuple[float, Floats]:
        linear, away = features @ weights, weights - _CALIBRATED
        gradient: Floats = features.T @ (expit(linear) - right) + away
        return float((np.logaddexp(0, linear) - right * linear).sum() + away @ away / 2), gradient

    weights = minimize(loss, _CALIBRATED, jac=True, method="BFGS").x
    spread = expit(features @ weights)
    information = (features * (spread * (1 - spread))[:, None]).T @ features + np.eye(2)
    asked = _features(_SCORES[: _SCORES.searchsorted(score.max(), side="right")])
    errors = np.sqrt(np.einsum("ij,jk,ik->i", asked, np.linalg.inv(information), asked))
    lowest: Floats = expit(asked @ weights - _BELOW * errors)
    return lowest


def _features(score: Floats) -> Floats:
    return np.stack((np.ones_like(score), logit(np.clip(score, _NEAREST, 1 - _NEAREST))), axis=1)
