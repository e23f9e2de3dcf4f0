"""Figures from answers, their intervals, and the points of the plot, on answers whose figures are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from loadtests.quality import figures
from loadtests.quality.figures import (
    OUT_OF_SCOPE,
    Answers,
    auroc,
    balanced,
    calibration,
    chance_error,
    classification,
    coverage_curve,
    macro_f1,
    out_of_scope,
    reliability,
    resampled,
    scope_curve,
    share,
    wilson,
)
from models.evaluation.metrics import classifier_metrics


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "RESAMPLES", 200)


def answers(truth: str, label: str, score: list[float], handed: str = "") -> Answers:
    """Labels of one letter each; `handed` has an x for each text that is handed to a person."""
    predictions = [
        {"label": given, "score": sure, "top_k": [{"label": given, "score": sure}], "handoff": mark == "x"}
        for given, sure, mark in zip(label, score, handed or "-" * len(truth), strict=True)
    ]
    return Answers.of(list(truth), predictions)


def random_answers(count: int, seed: int) -> Answers:
    """Scores that are exact: a text with the score 0.8 is right in 80 % of the cases."""
    draw = np.random.default_rng(seed)
    score = draw.uniform(0.4, 1.0, count).round(4)
    truth = draw.choice(list("abcd"), count)
    wrong = np.where(truth == "a", "b", "a")
    label = np.where(draw.random(count) < score, truth, wrong)
    return answers("".join(truth), "".join(label), score.tolist())


@pytest.mark.parametrize(
    ("extra", "handed"),
    [
        ({"handoff": True}, True),
        ({"handoff": True, "reason": "low_confidence"}, True),
        ({"handoff": True, "reason": "asked_for_person"}, False),
        ({"handoff": False}, False),
        ({}, False),
    ],
)
def test_a_text_is_caught_if_handed_off_but_not_for_asking_for_a_person(extra: dict[str, Any], handed: bool) -> None:
    assert Answers.of(["a"], [{"label": "a", "score": 0.9, **extra}]).handed.tolist() == [handed]


def test_the_best_score_in_scope_passes_over_the_label_out_of_scope() -> None:
    top = [{"label": OUT_OF_SCOPE, "score": 0.7}, {"label": "a", "score": 0.2}]
    found = Answers.of(["a", "a"], [{"label": OUT_OF_SCOPE, "score": 0.7, "top_k": top}, {"label": "a", "score": 0.6}])
    assert found.in_scope.tolist() == [0.2, 0.6]


def test_early_answers_are_those_of_the_linear_reader_alone() -> None:
    rows = [{"label": "a", "score": 1.0, "stages": stages} for stages in (["linear"], ["linear", "encoder"])]
    assert Answers.of(["a", "a"], rows).early.tolist() == [True, False]


def test_figures_are_those_of_training() -> None:
    """Accuracy, macro-F1 and calibration error of the same answers, computed by `flywheel train` from probabilities."""
    draw = np.random.default_rng(3)
    probabilities = draw.dirichlet([0.3] * 4, 400).astype(np.float32)
    truth = draw.choice(list("abcd"), 400).tolist()
    predictions = [{"label": "abcd"[row.argmax()], "score": float(row.max())} for row in probabilities]
    found = {one.name: one.value for one in classification([Answers.of(truth, predictions)])}
    expected = classifier_metrics(list("abcd"), truth, probabilities)
    for name in ("accuracy", "macro_f1", "calibration_error"):
        assert found[name] == pytest.approx(expected[name], abs=5e-5)
    assert found["early.share"] == 0


def test_macro_f1_counts_every_label_alike() -> None:
    found = answers("aaab", "aaaa", [1.0] * 4)
    assert macro_f1(found) == pytest.approx((6 / 7 + 0) / 2)
    assert macro_f1(found) == pytest.approx(f1_score(list("aaab"), list("aaaa"), average="macro", zero_division=0.0))


def test_wilsons_interval_has_published_values() -> None:
    """Of Newcombe (1998), table I: 81 of 263 and 0 of 20."""
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 20) == pytest.approx((0.8389, 1.0), abs=5e-5)


def test_several_seeds_give_their_mean_and_no_smaller_interval() -> None:
    """The seeds are asked the same texts, so three of them are no three times as many texts."""
    hits = np.array([True] * 8 + [False] * 2)
    one, three = share("x", [hits]), share("x", [hits, hits, hits])
    assert three.texts == 10
    assert (three.value, three.low, three.high) == pytest.approx((one.value, one.low, one.high))
    assert share("x", [hits, ~hits]).by_run == [0.8, 0.2]
    run = random_answers(200, 0)
    alone, thrice = resampled("x", [run], macro_f1), resampled("x", [run] * 3, macro_f1)
    assert (thrice.low, thrice.high) == pytest.approx((alone.low, alone.high))


def test_the_bootstrap_interval_is_about_as_wide_as_wilsons() -> None:
    run = random_answers(1000, 1)
    accuracy = share("accuracy", [run.right])
    drawn = resampled("accuracy", [run], lambda some: float(some.right.mean()))
    assert drawn.value == accuracy.value
    assert (drawn.low, drawn.high) == pytest.approx((accuracy.low, accuracy.high), abs=0.006)


def test_exact_scores_have_the_calibration_error_of_chance() -> None:
    run = random_answers(1000, 2)
    by_chance = chance_error([run])
    assert by_chance.low <= calibration(run) <= by_chance.high
    assert resampled("calibration_error", [run], calibration).low < 0.01  # the bootstrap's own bias is subtracted


def test_scores_that_are_too_high_have_an_error_beyond_chance() -> None:
    run = answers("ab" * 100, "aa" * 100, [0.9] * 200)
    assert calibration(run) == pytest.approx(0.4, abs=1e-6)
    assert calibration(run) > chance_error([run]).high


def test_confidence_in_words_has_its_share_and_precision() -> None:
    words = ["high"] * 3 + ["low"]
    rows = [{"label": "a", "score": 0.9, "confidence": word} for word in words]
    found = {one.name: one.value for one in classification([Answers.of(list("aaba"), rows)])}
    assert found["confidence.high.share"] == 0.75
    assert found["confidence.high.precision"] == pytest.approx(2 / 3)
    assert found["confidence.low.precision"] == 1.0
    assert "confidence.medium.share" not in found


def test_out_of_scope_has_its_figures() -> None:
    run = answers("aaaaxx" * 5, "aaabab" * 5, [0.9, 0.8, 0.7, 0.3, 0.6, 0.2] * 5, "---x-x" * 5)
    outside = run.truth == "x"
    found = {one.name: one for one in out_of_scope([run], [outside])}
    assert found["in_scope.kept"].value == 0.75
    assert found["out_of_scope.caught"].value == 0.5
    assert found["balanced"].value == 0.625
    assert found["auroc"].value == 7 / 8  # of the 8 pairs of scores, 0.3 and 0.6 are in the wrong order
    assert (found["in_scope.kept"].texts, found["out_of_scope.caught"].texts) == (20, 10)


def test_the_scope_curve_has_what_a_bound_keeps_and_catches() -> None:
    run = answers("aaaxx", "aaaaa", [0.9, 0.8, 0.4, 0.6, 0.2])
    kept, caught = scope_curve(run, run.truth == "x")
    assert dict(zip(kept.round(3).tolist(), caught.tolist(), strict=True))[0.667] == 1.0  # the bound 0.8
    assert (kept[0], caught[0]) == (1.0, 0.0)  # the bound 0.2 catches nothing
    as_label = Answers.of(
        [OUT_OF_SCOPE if truth == "x" else "a" for truth in run.truth],
        [{"label": "a", "score": score} for score in run.score.tolist()],
    )
    assert balanced(as_label) == 0.5
    assert auroc(as_label) == pytest.approx(5 / 6)


def test_the_reliability_points_are_bins_with_answers() -> None:
    scores, right, counts = reliability(answers("aabb", "aaab", [0.99, 1.0, 0.99, 0.5]))
    assert counts.tolist() == [1, 3]
    assert scores.tolist() == pytest.approx([0.5, 2.98 / 3])
    assert right.tolist() == pytest.approx([1.0, 2 / 3])


def test_the_coverage_curve_begins_with_the_surest_and_ends_with_all() -> None:
    coverage, accuracy = coverage_curve(answers("aaaa", "abab", [0.9, 0.5, 0.8, 0.5]))
    assert coverage.tolist() == [0.25, 0.5, 1.0]  # texts of one score come together
    assert accuracy.tolist() == [1.0, 1.0, 0.5]
