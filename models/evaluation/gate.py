"""The gate: may this candidate serve? Compares its exported bundle with the champion's on the same texts.

A candidate is accepted when every check passes. The checks are statistical tests, and a holdout too small to rule out
harm refuses. docs/decisions/0013-gate.md has the reasons and the error rates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.model import Model
from export.providers import Providers
from models.data.dataset import Example
from models.data.interactions import Interactions
from models.evaluation import checks
from models.evaluation.checks import Check, PairedCounts
from models.evaluation.evaluate import (
    DefectError,
    Evaluation,
    RankerEvaluation,
    check_parity,
    evaluate_bundle,
    evaluate_ranker,
    latency_ratios,
    open_model,
)
from models.feedback.types import Sample
from models.tasks.thresholds import Thresholds

HOLDOUT, FEEDBACK = "holdout", "feedback"
_NO_TIMES: NDArray[np.float64] = np.zeros(0)


@dataclass(frozen=True)
class GateResult:
    """The decision with its checks, and a classifier's evaluations by set, on which they are based."""

    reasons: tuple[Check, ...]
    champion: Mapping[str, Evaluation] = field(default_factory=dict)
    candidate: Mapping[str, Evaluation] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        return bool(self.reasons) and all(check.passed for check in self.reasons)

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.reasons if not check.passed]

    @property
    def sentence(self) -> str:
        """The decision and its main reason: for a log line, a notification and the top of the report."""
        if self.accepted:
            told = ("holdout accuracy", "feedback", *checks.RANKING_METRICS)
            sentences = [check.sentence for check in self.reasons if check.name in told]
            return " ".join(["Accepted.", *sentences])
        first, *more = self.failed
        others = f" {len(more)} more {'checks' if len(more) > 1 else 'check'} failed." if more else ""
        return f"Refused. {first.sentence}{others}"


def refusal(name: str, sentence: str) -> GateResult:
    """The refusal of a candidate that could not be compared, such as one whose export failed."""
    return GateResult((Check(name, False, sentence),))


def judge(
    champion: Mapping[str, Evaluation],
    candidate: Mapping[str, Evaluation],
    thresholds: Thresholds,
    ratios: NDArray[np.float64] = _NO_TIMES,
) -> GateResult:
    """Compare two classifiers on the frozen `holdout` and the newest `feedback`, which may be absent or empty.

    Both were evaluated on the same examples in the same order; `ratios` are those of latency_ratios. The label sets
    may differ: an example whose label the champion lacks counts as wrong for it. Raises KeyError without a holdout.
    """
    pairs = {name: (champion[name], candidate[name]) for name in (HOLDOUT, FEEDBACK) if name in candidate}
    pairs = {name: pair for name, pair in pairs.items() if name == HOLDOUT or pair[1].truth}
    before, after = pairs[HOLDOUT]
    # Feedback may be of one label only, which a candidate misses: there, one prediction for all is no defect.
    reasons = [checks.sound(after.defect(), HOLDOUT)]
    reasons += [checks.sound(pair[1].unusable(), name) for name, pair in pairs.items() if name != HOLDOUT]
    reasons += [_broken_champion(pair[0], name) for name, pair in pairs.items() if pair[0].unusable()]
    if not after.truth:
        reasons.append(Check(HOLDOUT, False, "There is no holdout to compare on."))
    if any(not check.passed for check in reasons):
        return GateResult(tuple(reasons))  # the other checks need valid numbers
    newest = PairedCounts.of(*pairs[FEEDBACK]) if FEEDBACK in pairs else PairedCounts(0, 0, 0, 0)
    feedback_check, gained = checks.feedback(newest, thresholds)
    reasons += [*checks.holdout(PairedCounts.of(before, after), gained, thresholds), feedback_check]
    reasons += [
        checks.label_recall(*pair, name, thresholds)
        for name, pair in pairs.items()
        if name == HOLDOUT or newest.total >= thresholds.min_feedback
    ]
    reasons += [checks.knows_labels(before, after), checks.calibration(before, after, thresholds)]
    reasons += [*checks.early_answers(after, thresholds), checks.latency(ratios, thresholds)]
    return GateResult(tuple(reasons), champion, candidate)


def judge_ranker(
    champion: RankerEvaluation,
    candidate: RankerEvaluation,
    thresholds: Thresholds,
    ratios: NDArray[np.float64] = _NO_TIMES,
) -> GateResult:
    """Compare two rankers on the same held-out events, by AUC, AUC within a user and nDCG@10: none may be lost."""
    if defect := champion.defect():
        return refusal("champion", f"The champion is broken: {defect}. Promote another version by hand.")
    reasons = [checks.sound(candidate.defect(), HOLDOUT)]
    if reasons[0].passed:
        reasons += [*checks.ranking(champion, candidate, thresholds), checks.latency(ratios, thresholds)]
    return GateResult(tuple(reasons))


def gate_classifier(
    champion: Path,
    candidate: Path,
    holdout: Sequence[Example],
    feedback: Sequence[Sample],
    thresholds: Thresholds,
    providers: Providers = "auto",
) -> GateResult:
    """Evaluate two bundles and judge their final answers. Any defect of either is a refusal, never an exception.

    Early answers are on, since `early_answers` can be switched on at any time.
    `feedback` are the newest samples, held out by time: the candidate was not trained on them. It may be empty.
    """
    texts = [example.text for example in holdout]
    # A user may ask for erasure, and the report outlives the sample: it shows feedback by id, never by text.
    ids = [f"feedback {sample.id}" for sample in feedback]

    def evaluate(model: Model) -> dict[str, Evaluation]:
        return {
            HOLDOUT: evaluate_bundle(model, texts, [example.label for example in holdout], texts),
            FEEDBACK: evaluate_bundle(model, [s.text for s in feedback], [s.label for s in feedback], ids),
        }

    if not holdout:
        return refusal(HOLDOUT, "There is no holdout to compare on.")
    role = "champion"
    try:
        old = open_model(champion, providers)
        before = evaluate(old)
        role = "candidate"
        new = open_model(candidate, providers)
        after = evaluate(new)
        result = judge(before, after, thresholds)
        if not result.candidate:  # defective: no need to measure parity or latency
            return result
        parity = Check("parity", True, check_parity(new, texts))  # raises DefectError where it fails
        result = judge(before, after, thresholds, latency_ratios(old, new, texts))
    except DefectError as error:
        return refusal(role, f"The {role} is broken: {error}.")
    return GateResult((*result.reasons, parity), before, after)


def gate_ranker(
    champion: Path, candidate: Path, interactions: Interactions, thresholds: Thresholds, providers: Providers = "auto"
) -> GateResult:
    """As `gate_classifier`, for rankers, on the held-out events of `interactions`."""
    texts = list(interactions.texts)
    role = "champion"
    try:
        old = open_model(champion, providers)
        before = evaluate_ranker(old, interactions)
        role = "candidate"
        new = open_model(candidate, providers)
        after = evaluate_ranker(new, interactions)
        parity = Check("parity", True, check_parity(new, texts))
        result = judge_ranker(before, after, thresholds, latency_ratios(old, new, texts))
    except DefectError as error:
        return refusal(role, f"The {role} is broken: {error}.")
    return GateResult((*result.reasons, parity))


def _broken_champion(champion: Evaluation, where: str) -> Check:
    sentence = f"The champion is broken: {champion.unusable()} ({where}). Promote another version by hand."
    return Check("champion", False, sentence)
