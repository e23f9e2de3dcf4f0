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


# Of 500 answers the champion gives 400 early. Its encoder takes 10 ms for a text.
MOSTLY_EARLY = Counts(answers=500, errors=2, texts=100, seconds=1.0)


@pytest.mark.parametrize(
    ("challenger", "step"),
    [
        (Counts(answers=500, errors=2, texts=500, seconds=5.0), "promote"),  # none early: five times the encoder's work
        (Counts(answers=500, errors=2, texts=30, seconds=0.3), "promote"),
        (Counts(answers=500, texts=3, seconds=0.3), "promote"),  # three texts say nothing about its time
        (
            Counts(answers=500, errors=9, texts=500, seconds=5.0),
            "promote",
        ),  # of what waits 1.8 % is late, the champion's 2.0 %
        (Counts(answers=500, errors=16, texts=500, seconds=5.0), "rollback"),
        (Counts(answers=500, errors=16, faults=16, texts=900, seconds=9.0), "rollback"),  # its own errors
        (Counts(answers=500, texts=30, seconds=0.9), "rollback"),  # its encoder is slow, however rarely it is asked
    ],
)
def test_the_share_of_early_answers_decides_nothing(challenger: Counts, step: str) -> None:
    decision = decide(CANARY, challenger, MOSTLY_EARLY, {}, 60, RULES)
    assert decision.step == step, decision.reason


def test_only_texts_that_the_encoder_ran_count_as_its() -> None:
    def sample(name: str, value: float, **labels: str) -> tuple[tuple[str, frozenset[tuple[str, str]]], float]:
        return (name, frozenset({"task": "intent", "version": "2", **labels}.items())), value

    samples = dict(
        [
            sample("flywheel_texts_total", 400, stage="linear"),
            sample("flywheel_texts_total", 300, stage="encoder"),  # two thirds of them from the cache
            sample("flywheel_batch_size_sum", 100),
            sample("flywheel_stage_seconds_sum", 1.0, stage="infer"),
            sample("flywheel_stage_seconds_sum", 9.0, stage="tokenize"),
        ]
    )
    counts = Counts.of(samples, "intent", "2")
    assert (counts.texts, counts.mean_s) == (100, 0.01)


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
