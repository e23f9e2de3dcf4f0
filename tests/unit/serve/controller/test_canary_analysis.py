"""What is decided about a challenger, and about a promoted version, on what was counted of their answers."""

from __future__ import annotations

import pytest

from models.releases.release import Release
from serve.config import RolloutConfig
from serve.controller.canary_analysis import RolloutDecision, decide, decide_promoted
from serve.controller.canary_analysis import VersionCounts as Counts
from tests.helpers.releases import CANARY, SHADOW

RULES = RolloutConfig(min_answers=100, min_duration_s=10, min_feedback=20)


FINE = Counts(answers=500, texts=400, seconds=4.0)


def test_model_time_is_of_the_texts_that_the_model_ran_or_answered_early() -> None:
    def sample(name: str, value: float, **labels: str) -> tuple[tuple[str, frozenset[tuple[str, str]]], float]:
        return (name, frozenset({"task": "intent", "version": "2", **labels}.items())), value

    samples = dict([
        sample("flywheel_texts_total", 60, stage="linear"),
        sample("flywheel_texts_total", 100, stage="encoder"),  # most of them from the cache
        sample("flywheel_batch_size_sum", 40),
        sample("flywheel_stage_seconds_sum", 0.4, stage="infer"),
        sample("flywheel_stage_seconds_sum", 9.0, stage="queue"),
    ])  # fmt: skip
    counts = Counts.of(samples, "intent", "2")
    assert counts == Counts(texts=100, seconds=0.4)
    assert counts.mean_s == pytest.approx(0.004)


@pytest.mark.parametrize(
    ("release", "challenger", "champion", "accuracy", "age", "step"),
    [
        (CANARY, Counts(answers=50, seconds=0.5), FINE, {}, 60, "wait"),
        (CANARY, FINE, FINE, {}, 5, "wait"),
        (CANARY, FINE, FINE, {}, 60, "promote"),
        (CANARY, Counts(answers=500, errors=20, seconds=5), FINE, {}, 60, "rollback"),
        (
            CANARY,
            Counts(answers=500, errors=20, seconds=5),
            Counts(answers=500, errors=30, seconds=5),
            {},
            60,
            "promote",
        ),
        (CANARY, Counts(answers=30, errors=25, seconds=1), FINE, {}, 1, "rollback"),
        (CANARY, Counts(answers=500, texts=100, seconds=4), FINE, {}, 60, "rollback"),
        (CANARY, FINE, FINE, {"1": (90, 100), "2": (60, 100)}, 60, "rollback"),
        (CANARY, FINE, FINE, {"1": (90, 100), "2": (88, 100)}, 60, "promote"),
        (CANARY, FINE, FINE, {"1": (9, 10), "2": (1, 10)}, 60, "promote"),
        (SHADOW, Counts(agree=480, differ=20), FINE, {}, 60, "canary"),
        (SHADOW, Counts(agree=100, differ=400), FINE, {}, 60, "rollback"),
        (SHADOW, Counts(agree=450, failed=50), FINE, {}, 60, "rollback"),
        (SHADOW, Counts(answers=500), FINE, {}, 60, "wait"),
    ],
)
def test_what_evidence_decides(
    release: Release,
    challenger: Counts,
    champion: Counts,
    accuracy: dict[str, tuple[int, int]],
    age: float,
    step: str,
) -> None:
    decision = decide(release, challenger, champion, accuracy, age, RULES)
    assert isinstance(decision, RolloutDecision)
    assert decision.step == step, decision.reason
    assert decision.reason


@pytest.mark.parametrize(
    ("champion", "before", "step"),
    [
        (
            Counts(answers=500, errors=100, faults=3),
            Counts(),
            "wait",
        ),  # deadlines passed, which the load may have done
        (Counts(answers=500, faults=20), Counts(answers=500), "rollback"),
        (Counts(answers=500, faults=20), Counts(answers=500, faults=25), "wait"),  # so it was before
        (Counts(answers=50, faults=20), Counts(), "wait"),
        (Counts(answers=30, faults=25), Counts(), "rollback"),
        (Counts(), Counts(), "wait"),
    ],
)
def test_what_becomes_of_a_promoted_version_that_fails(champion: Counts, before: Counts, step: str) -> None:
    decision = decide_promoted(champion, before, RULES)
    assert decision.step == step, decision.reason
