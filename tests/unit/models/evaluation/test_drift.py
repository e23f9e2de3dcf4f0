"""Drift is told from chance and from what is too small to matter."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.data.dataset import load_dataset
from models.data.records import read_rows
from models.evaluation.drift import (
    WINDOW,
    Drift,
    DriftLimits,
    drift_in_log,
    drift_of_confidence,
    drift_of_early_answers,
    drift_of_lengths,
)
from models.feedback.types import LoggedPrediction
from tests.helpers.command import ROOT

DATA = ROOT.parent / "shared" / "data"


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(5)


def test_the_same_confidence_has_not_drifted(random: np.random.Generator) -> None:
    drift = drift_of_confidence(random.beta(8, 2, 2000), random.beta(8, 2, 2000))
    assert not drift.drifted
    assert drift.sentence.startswith("Confidence: no drift (distance ")


def test_falling_confidence_has_drifted(random: np.random.Generator) -> None:
    drift = drift_of_confidence(random.beta(8, 2, 1000), random.beta(4, 2, 300))
    assert drift.drifted
    assert drift.p_value < 1e-6
    assert drift.sentence.startswith("Confidence: drift (distance ")
    assert drift.sentence.endswith("The median went from 0.82 to 0.69.")


def test_a_huge_sample_with_a_tiny_difference_has_not_drifted(random: np.random.Generator) -> None:
    drift = drift_of_confidence(random.beta(8, 2, 200_000), random.beta(7.8, 2, 200_000))
    assert drift.p_value < 1e-6
    assert not drift.drifted
    assert "a difference too small to matter" in drift.sentence


def test_a_large_difference_that_may_be_chance_has_seldom_drifted(random: np.random.Generator) -> None:
    """As seldom as the p-value says, though a distance of a hundred texts is often large."""
    drifts = [drift_of_lengths(random.normal(size=100), random.normal(size=100)) for _ in range(1000)]
    large = [drift for drift in drifts if drift.statistic >= DriftLimits().distance]
    assert len(large) > 300
    assert sum(drift.drifted for drift in drifts) <= 15  # of 10 expected
    assert sum("a difference that may be chance" in drift.sentence for drift in large) >= len(large) - 15


def early(share: float, count: int) -> NDArray[np.bool_]:
    return np.arange(count) < round(share * count)


def test_a_falling_share_of_early_answers_has_drifted() -> None:
    drift = drift_of_early_answers(early(0.6, 1000), early(0.4, 1000))
    assert drift.drifted
    assert drift.statistic == pytest.approx(0.2)
    assert drift.p_value == pytest.approx(1.86e-19, rel=0.01)
    assert drift.sentence.startswith("Early answers: drift (distance 0.200 of 0.12, p ")
    assert drift.sentence.endswith("Their share went from 60% to 40%.")


@pytest.mark.parametrize(
    ("then", "now", "count", "conclusion"),
    [
        (0.6, 0.9, 1000, "no drift"),  # more is no sign of other texts
        (0.6, 0.55, 10_000, "a difference too small to matter"),
        (0.6, 0.47, 100, "a difference that may be chance"),
        (0.6, 0.6, 1000, "no drift"),
        (1.0, 1.0, 1000, "no drift"),
        (0.0, 0.0, 1000, "no drift"),
    ],
)
def test_other_shares_of_early_answers_have_not_drifted(then: float, now: float, count: int, conclusion: str) -> None:
    drift = drift_of_early_answers(early(then, count), early(now, count))
    assert not drift.drifted
    assert f"Early answers: {conclusion} (" in drift.sentence


def logged(version: str, scores: Sequence[float], is_early: Sequence[bool] | None = None) -> list[LoggedPrediction]:
    """Predictions of single texts of one length."""
    answers: list[dict[str, Any]] = [{"label": "a", "score": score} for score in scores]
    if is_early is not None:
        answers = [answer | {"early": bool(found)} for answer, found in zip(answers, is_early, strict=True)]
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return [LoggedPrediction("0" * 32, "intent", version, ["a text"], [answer], at) for answer in answers]


def told(rows: Sequence[LoggedPrediction], champion: str) -> str:
    """The first drift of the log, as a sentence."""
    return next((drift.sentence for drift in drift_in_log(rows, champion).values() if drift.drifted), "")


def test_the_log_is_measured_with_and_without_drift() -> None:
    sure = np.full(WINDOW, 0.9)
    rows = [*logged("1", sure, early(0.6, WINDOW)), *logged("1", sure, early(0.5, WINDOW))]
    found = drift_in_log(rows, "1")
    assert {name: round(drift.statistic, 3) for name, drift in found.items()} == {
        "lengths": 0, "confidence": 0, "early_answers": 0.1,
    }  # fmt: skip
    assert {drift.bound for drift in found.values()} == {DriftLimits().distance}
    assert drift_in_log(rows[1:], "1") == {}, "too few"


def test_in_the_log_fewer_early_answers_are_drift_though_confidence_is_the_same() -> None:
    sure = np.full(WINDOW, 0.9)
    rows = [*logged("1", sure, early(0.6, WINDOW)), *logged("1", sure, early(0.3, WINDOW))]
    assert told(rows, "1").endswith("Their share went from 60% to 30%.")
    assert told(rows[WINDOW:] + rows[:WINDOW], "1") == ""
    assert told(rows[1:], "1") == "", "too few"


def test_in_the_log_only_answers_of_one_version_and_one_kind_are_compared() -> None:
    sure, less = np.full(WINDOW, 0.9), np.full(WINDOW, 0.6)
    assert told([*logged("1", sure), *logged("1", less)], "1").startswith("Confidence: drift")
    assert told([*logged("1", sure), *logged("2", less)], "2") == ""
    challenged = [row for pair in zip(logged("1", sure), logged("2", less), strict=True) for row in pair]
    assert told([*logged("1", sure), *challenged, *logged("2", less)], "1") == ""
    # Rows of before the linear reader answered alone, as of an earlier release of Flywheel, have no `early`.
    assert told([*logged("1", sure), *logged("1", less, early(0.5, WINDOW))], "1") == ""
    assert told([], "1") == ""


def test_in_the_log_lengths_of_all_versions_are_compared() -> None:
    before, after = logged("1", np.full(WINDOW, 0.9)), logged("2", np.full(WINDOW, 0.9))
    longer = [LoggedPrediction(r.id, r.task, r.version, ["a longer text"], r.output, r.at) for r in after]
    assert told([*before, *longer], "2").startswith("Input lengths: drift")


@pytest.mark.parametrize(("then", "now"), [(99, 5000), (5000, 99), (0, 0)])
def test_too_few_samples_decide_nothing(then: int, now: int) -> None:
    expected = f"Too few samples to tell: {then:,} of reference and {now:,} now, 100 of each are needed."
    assert drift_of_confidence(np.zeros(then), np.ones(now)) == Drift(0.0, 1.0, False, expected)
    assert drift_of_lengths(np.zeros(then), np.ones(now)) == Drift(0.0, 1.0, False, expected)
    assert drift_of_early_answers(np.ones(then), np.zeros(now)) == Drift(0.0, 1.0, False, expected)


def test_scores_that_never_change_have_not_drifted() -> None:
    assert drift_of_confidence(np.ones(500), np.ones(500)).p_value == 1.0
    assert drift_of_lengths(np.ones(500), np.ones(500)).p_value == 1.0
    assert drift_of_lengths(np.ones(500), np.zeros(500)).drifted


def test_limits_are_obeyed(random: np.random.Generator) -> None:
    then, now = random.normal(size=2000), random.normal(0.3, size=1000)
    assert drift_of_lengths(then, now, DriftLimits(distance=0.05)).drifted
    assert not drift_of_lengths(then, now, DriftLimits(distance=0.3)).drifted
    assert not drift_of_lengths(then, now, DriftLimits(samples=1001)).drifted


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (np.ones(200), np.ones((200, 1))),
        (np.ones((2, 2, 2)), np.ones((2, 2, 2))),
        (np.full(200, np.nan), np.ones(200)),
        (np.float64(1), np.ones(200)),
    ],
)
def test_what_cannot_be_compared_is_refused(then: NDArray[np.float64], now: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="expected"):
        drift_of_lengths(then, now)


def test_confidence_takes_one_score_an_answer() -> None:
    with pytest.raises(ValueError, match="one finite number a text or answer"):
        drift_of_confidence(np.ones((200, 2)), np.ones((200, 2)))


def test_the_seed_corpora(random: np.random.Generator) -> None:
    intent = [len(example.text) for example in load_dataset("intent").train]
    finance = [len(example.text) for example in load_dataset("sentiment").train]
    random.shuffle(intent)
    assert not drift_of_lengths(intent[:2000], intent[2000:]).drifted
    assert drift_of_lengths(intent[:2000], finance[:200]).drifted
    assert drift_of_lengths(intent[:2000], intent[2000:2150] + finance[:150]).drifted


@pytest.mark.skipif(not DATA.is_dir(), reason="needs Banking77 and the Financial PhraseBank at ../shared/data")
def test_real_texts(random: np.random.Generator) -> None:
    def texts(name: str, count: int) -> list[str]:
        rows = [row["text"] for _, row in read_rows(DATA / name, required=("text", "label"))]
        return [rows[at] for at in random.permutation(len(rows))[:count]]

    banking, later = texts("banking77/train.csv", 600), texts("banking77/test.csv", 300)
    news = texts("financial_phrasebank/train.csv", 300)
    lengths = [len(text) for text in banking]
    assert not drift_of_lengths(lengths, [len(text) for text in later]).drifted
    assert drift_of_lengths(lengths, [len(text) for text in news]).drifted
