"""The blend's factors and the thresholds of early answers, on made readings whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from models.evaluation.metrics import calibration_error
from models.training.blend import Validation, choose_early, fit_blend, label_thresholds

LABELS = ["a", "b", "c", "d"]


def made(texts: int = 4000, *, encoder: float = 3.0, linear: float = 2.0, seed: int = 0) -> Validation:
    """Two readers with independent noise; `encoder` and `linear` are how far the right label stands out of it."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, len(LABELS), texts)
    right = np.eye(len(LABELS))[truth]
    logits = [(factor * right + draw.normal(size=right.shape)).astype(np.float32) for factor in (encoder, linear)]
    return Validation(logits[0], logits[1], np.ones(texts), truth)


def test_the_blend_is_calibrated_and_better_than_either_reader() -> None:
    blend, other = fit_blend(made()), made(seed=1)
    blended = blend.encoder * other.encoder + blend.linear * other.linear
    right = blended.argmax(1) == other.truth
    assert calibration_error(softmax(blended, axis=1).max(1), right) < 0.015
    assert right.mean() > max((each.argmax(1) == other.truth).mean() for each in (other.encoder, other.linear))
    # With unit noise, the best factor of a reader is the distance itself.
    assert (blend.encoder, blend.linear, blend.linear_alone) == pytest.approx((3, 2, 2), rel=0.1)


def test_a_reader_that_knows_nothing_gets_no_weight() -> None:
    blend = fit_blend(made(linear=0.0))
    assert blend.linear == pytest.approx(0, abs=0.1)


def early(validation: Validation) -> object:
    unseen = made(seed=2)
    return choose_early(validation, fit_blend(validation), unseen.linear, unseen.known, unseen.truth, LABELS, 0.8)


def test_early_answers_agree_with_the_blend_on_other_texts() -> None:
    validation, other = made(linear=5.0), made(linear=4.0, seed=3)
    blend = fit_blend(validation)
    chosen = choose_early(validation, blend, other.linear, other.known, other.truth, LABELS, 0.8)
    assert chosen is not None
    probabilities = softmax(blend.linear_alone * other.linear, axis=1)
    own = np.array([max(chosen.above, chosen.label_above.get(label, 0)) for label in LABELS])
    answered = probabilities.max(1) > own[probabilities.argmax(1)]
    final = (blend.encoder * other.encoder + blend.linear * other.linear).argmax(1)
    assert answered.mean() == pytest.approx(chosen.share, abs=0.03)
    assert (probabilities.argmax(1) == final)[answered].mean() > 0.985


def test_there_are_none_where_the_linear_reader_is_too_weak() -> None:
    assert early(made(linear=0.5)) is None


def test_there_are_none_for_texts_of_unknown_words() -> None:
    validation = made(linear=5.0)
    assert early(validation) is not None
    assert early(replace(validation, known=np.full(len(validation.truth), 0.5))) is None


def test_a_label_that_swallows_others_is_never_answered_early() -> None:
    unseen = made(linear=5.0)
    swallowing = unseen.linear.copy()
    swallowing[unseen.truth == 1] = [9, 0, 0, 0]  # every text of "b" is surely "a" to the linear reader
    own = label_thresholds(fit_blend(unseen), swallowing, unseen.known, unseen.truth, 0.8)
    assert own[0] == 1
    assert own[2] < 0.9


def test_a_small_label_is_not_swallowed_by_a_large_one() -> None:
    unseen = made(linear=5.0)
    blend = fit_blend(unseen)
    before = label_thresholds(blend, unseen.linear, unseen.known, unseen.truth, 0.8)[0]
    few = np.flatnonzero(unseen.truth == 1)[:10]  # a new label's texts, of which one looks like "a"
    logits = np.concatenate((unseen.linear[unseen.truth != 1], unseen.linear[few]))
    truth = np.concatenate((unseen.truth[unseen.truth != 1], unseen.truth[few]))
    logits[-1] = [4, 0, 0, 0]
    after = label_thresholds(blend, logits, np.ones(len(truth)), truth, 0.8)[0]
    probability = softmax(blend.linear_alone * logits[-1:], axis=1).max()
    assert before < probability <= after
