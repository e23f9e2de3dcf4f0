"""Thresholds on signs of texts out of scope are judged on texts by which they were not chosen."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.handoff import Handed, best_threshold, judge


def test_a_sign_that_tells_all_texts_apart() -> None:
    outside = np.arange(40) % 4 < 2
    sign = judge(np.where(outside, 0.9, 0.1), outside)
    assert sign == (1.0, Handed(caught=1.0, kept=1.0))
    assert sign.handed.balanced == 1.0


def test_a_sign_without_meaning_is_no_better_than_chance_on_the_other_half() -> None:
    draw = np.random.default_rng(0)
    signs = [judge(draw.random(60), draw.random(60) < 0.5) for _ in range(40)]
    assert np.mean([sign.handed.balanced for sign in signs]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([sign.auroc for sign in signs]) == pytest.approx(0.5, abs=0.03)


def test_the_threshold_weighs_both_mistakes_alike_however_rare_one_is() -> None:
    value = np.array([0.1] * 90 + [0.4] * 10 + [0.5, 0.6])
    outside = np.array([False] * 100 + [True, True])
    assert best_threshold(value, outside) == 0.5
    outside[90:100] = [True] + [False] * 9
    assert best_threshold(value, outside) == 0.4
