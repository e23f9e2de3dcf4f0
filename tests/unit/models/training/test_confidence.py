"""The bounds of confidence, on answers that are right with a known probability."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from export.bundle import Blend, EarlyAnswers
from models.training.blend import Validation
from models.training.confidence import choose_confidence, final_confidence
from models.training.config import Recipe

RECIPE = Recipe()


def answers(
    texts: int, seed: int, *, off: float = 0.0, lowest: float = 0.3
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Probabilities of two labels, and the right ones: a score is right in its share of the cases, less `off`."""
    draw = np.random.default_rng(seed)
    score = 1 - (1 - lowest) * draw.random(texts) ** 3
    right = draw.random(texts) < score - off
    return np.stack((score, 1 - score), axis=1), np.where(right, score.argsort() * 0, 1).astype(np.intp)


def test_each_answer_from_a_bound_on_is_right_as_often_as_was_asked_for() -> None:
    """The true precision at a calibrated score is the score."""
    found = [choose_confidence(*answers(600, seed, lowest=0.51), RECIPE) for seed in range(40)]
    high = np.array([bounds.high for bounds in found], float)
    medium = np.array([bounds.medium for bounds in found], float)
    assert (high >= 0.95).mean() >= 0.8, "the interval has 90 % on one side"
    assert (medium >= 0.80).mean() >= 0.8
    assert np.median(high) == pytest.approx(0.965, abs=0.02)
    assert np.median(medium) == pytest.approx(0.84, abs=0.03)
    assert (medium < high).all()


def test_more_texts_bring_the_bounds_nearer() -> None:
    few, many = (choose_confidence(*answers(texts, 1, lowest=0.51), RECIPE) for texts in (200, 20_000))
    assert few.high is not None
    assert many.high is not None
    assert 0.95 < many.high < few.high
    assert (few.texts, many.texts) == (200, 20_000)


def test_scores_that_claim_too_much_get_higher_bounds() -> None:
    fair = choose_confidence(*answers(5000, 2, lowest=0.51), RECIPE)
    boastful = choose_confidence(*answers(5000, 2, off=0.04, lowest=0.51), RECIPE)
    assert fair.high is not None
    assert boastful.high is None or boastful.high > fair.high + 0.02


def test_a_band_that_no_score_reaches_says_so() -> None:
    """Answers of any score are right in 70 %."""
    draw = np.random.default_rng(3)
    score = 0.5 + 0.49 * draw.random(800)
    truth = np.where(draw.random(800) < 0.7, 0, 1).astype(np.intp)
    found = choose_confidence(np.stack((score, 1 - score), axis=1), truth, RECIPE)
    assert (found.high, found.medium) == (None, None)
    less = choose_confidence(np.stack((score, 1 - score), axis=1), truth, replace(RECIPE, confidence_medium=0.6))
    assert less.medium is not None


def test_a_reader_that_is_always_right_gets_bounds() -> None:
    score = np.linspace(0.5, 0.999, 300)
    found = choose_confidence(np.stack((score, 1 - score), axis=1), np.zeros(300, np.intp), RECIPE)
    assert found.high is not None
    assert found.high < 0.999


def test_early_answers_count_with_their_own_scores() -> None:
    """Where the linear reader answers alone its probability is the score, though the blend's is another."""
    texts = 400
    truth = np.zeros(texts, np.intp)
    linear = np.tile(np.array([3.0, 0.0], np.float32), (texts, 1))
    encoder = np.tile(np.array([0.0, 4.0], np.float32), (texts, 1))  # wrong
    validation = Validation(encoder, linear, np.ones(texts), truth)
    blend = Blend(encoder=1.0, linear=0.1, linear_alone=1.0)
    rule = EarlyAnswers(above=0.9, min_known=0.8)
    wrong = final_confidence(validation, blend, None, ("a", "b"), RECIPE)
    right = final_confidence(validation, blend, rule, ("a", "b"), RECIPE)
    assert wrong.high is None
    assert right.high is not None
