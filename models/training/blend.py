"""Fit the blend of the two readers, and choose when the linear reader may answer alone (export/model.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from export.bundle import Blend, EarlyAnswers
from export.heads import softmax
from export.linear import Floats

_MIN_AGREEMENT = 0.99
_MAX_LOSS = 0.001  # of accuracy: one validation text in a thousand
_MIN_SHARE = 0.1  # of texts that are answered early: with fewer, reading every text twice does not pay
MIN_KNOWN = {1: 0.9, 2: 0.8}
"""by max_ngram: the share of a text's n-grams that must be known (docs/decisions/0035-two-readers.md)"""
_THRESHOLDS = np.append(np.round(np.arange(0.5, 0.995, 0.01), 2), 0.995)
# Among texts that the reader was not fitted on: so many of a label's early answers may be wrong, and so many of any one
# other label's texts may get them. A new label has few texts, which look like those of an old one.
_MAX_LABEL_ERRORS, _MAX_SWALLOWED = 0.05, 0.05
_NEVER = 1.0

Truth = NDArray[np.intp]
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Validation:
    """Both readers' logits, (texts, labels), of texts that neither was trained on.

    `known` are their shares of known n-grams, `truth` the numbers of their labels, both (texts,).
    """

    encoder: Floats
    linear: Floats
    known: Shares
    truth: Truth


def fit_blend(validation: Validation) -> Blend:
    """The factors with the smallest log loss, so that probabilities are calibrated.

    A logarithmic opinion pool (Hinton, 2002) with temperature scaling (Guo et al., 2017,
    https://arxiv.org/abs/1706.04599).
    """
    encoder, linear = _factors([validation.encoder, validation.linear], validation.truth)
    (alone,) = _factors([validation.linear], validation.truth)
    return Blend(encoder=encoder, linear=linear, linear_alone=alone)


def fit_alone(unseen: Floats, truth: Truth) -> Blend:
    """The blend of a linear reader without an encoder. `unseen`, (texts, labels), are its out-of-fold logits."""
    (alone,) = _factors([unseen], truth)
    return Blend(encoder=0.0, linear=alone, linear_alone=alone)


def choose_early(
    validation: Validation,
    blend: Blend,
    unseen: Floats,
    unseen_known: Shares,
    truth: Truth,
    labels: Sequence[str],
    min_known: float,
) -> EarlyAnswers | None:
    """The smallest threshold from which early answers agree with the blend and cost no accuracy; None if too few do.

    `unseen`, (texts, labels), are out-of-fold logits of the linear reader for texts with `truth`, (texts,).
    """
    own = label_thresholds(blend, unseen, unseen_known, truth, min_known)
    early = softmax(blend.linear_alone * validation.linear)
    final = (blend.encoder * validation.encoder + blend.linear * validation.linear).argmax(1)
    answers, right = early.argmax(1), final == validation.truth
    for above in _THRESHOLDS:
        chosen = (early.max(1) > np.maximum(above, own[answers])) & (validation.known >= min_known)
        differing, count = int((answers != final)[chosen].sum()), int(chosen.sum())
        accuracy = float(np.where(chosen, answers == validation.truth, right).mean())
        agrees = differing <= (1 - _MIN_AGREEMENT) * count
        if agrees and chosen.mean() >= _MIN_SHARE and right.mean() - accuracy <= _MAX_LOSS:
            return EarlyAnswers(
                above=float(above),
                min_known=min_known,
                label_above={labels[i]: float(own[i]) for i in np.flatnonzero(own > above).tolist()},
                share=round(float(chosen.mean()), 4),
                agreement=round(1 - differing / count, 4),
                accuracy=round(accuracy, 4),
            )
    return None


def label_thresholds(blend: Blend, unseen: Floats, known: Shares, truth: Truth, min_known: float) -> Shares:
    """Each label's own smallest threshold, (labels,): above it, its early answers are rarely wrong.

    `unseen` are out-of-fold logits, (texts, labels). Texts of other labels, such as those out of scope, raise it.
    """
    probabilities = softmax(blend.linear_alone * unseen)
    answers, confidence = probabilities.argmax(1), probabilities.max(1)
    labels = unseen.shape[1]
    swallowed_at_most = _MAX_SWALLOWED * np.bincount(truth, minlength=labels)
    own = np.full(labels, _NEVER)
    for label in range(labels):
        mine = np.flatnonzero((answers == label) & (known >= min_known))
        for above in _THRESHOLDS:
            early = truth[mine[confidence[mine] > above]]
            wrong = np.bincount(early[early != label], minlength=labels)
            if early.size and wrong.sum() <= _MAX_LABEL_ERRORS * early.size and (wrong <= swallowed_at_most).all():
                own[label] = above
                break
    return own


def _factors(logits: Sequence[Floats], truth: Truth) -> list[float]:
    """A factor for each reader's logits, by maximum likelihood; the problem is convex.

    As if one more text than there are had an unlike label (Platt, 1999): a reader that has all of them right is no
    reason for factors without bound.
    """
    stacked, rows = np.stack(logits).astype(np.float64), np.arange(len(truth))
    rest = 1 / (len(truth) + 2)
    wanted = np.full(stacked.shape[1:], rest / stacked.shape[2])
    wanted[rows, truth] += 1 - rest

    def loss(factors: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logarithms = log_softmax(np.tensordot(factors, stacked, 1), axis=1)
        residual = np.exp(logarithms) - wanted
        gradient = np.array([(residual * one).sum() for one in stacked]) / len(truth)
        return -float((wanted * logarithms).sum()) / len(truth), gradient

    found = minimize(loss, np.ones(len(logits)), jac=True, method="L-BFGS-B", bounds=[(0.0, 100.0)] * len(logits))
    return [round(float(factor), 4) for factor in found.x]
