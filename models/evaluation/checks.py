"""The gate's checks. Each is a function from two evaluations to a Check with its numbers and a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.evaluation.evaluate import Evaluation, RankerEvaluation
from models.evaluation.metrics import CONFIDENCE_BINS, RANKS, calibration_error, confidence_bins, user_aucs, user_ndcgs
from models.evaluation.significance import (
    bootstrap,
    difference_lower_bound,
    mcnemar_p_value,
    recall_loss_p_value,
    share_p_value,
    sign_test_p_value,
)
from models.tasks.thresholds import Thresholds


@dataclass(frozen=True)
class Check:
    """One reason for the decision. `value` is None when nothing was measured; `unit` is that of value and bound."""

    name: str
    passed: bool
    sentence: str
    value: float | None = None
    bound: float | None = None
    limit: Literal["at most", "at least"] = "at most"
    unit: str = ""


@dataclass(frozen=True)
class PairedCounts:
    """Champion and candidate on one set.

    `wins` are examples that only the candidate has right, `losses` those that only the champion has right.
    """

    wins: int
    losses: int
    total: int
    before: int
    """examples that the champion has right"""

    @classmethod
    def of(cls, champion: Evaluation, candidate: Evaluation) -> PairedCounts:
        won, lost = candidate.right & ~champion.right, champion.right & ~candidate.right
        return cls(int(won.sum()), int(lost.sum()), len(candidate.truth), int(champion.right.sum()))

    @property
    def points(self) -> float:
        """Candidate's accuracy minus the champion's, in points."""
        return 100 * (self.wins - self.losses) / self.total if self.total else 0.0

    @property
    def p_better(self) -> float:
        """One-sided p-value of the test that the candidate is better."""
        return mcnemar_p_value(self.wins, self.losses)

    @property
    def p_worse(self) -> float:
        """One-sided p-value of the test that the candidate is worse."""
        return mcnemar_p_value(self.losses, self.wins)


def sound(defect: str | None, where: str) -> Check:
    """Are the candidate's outputs on this set valid? `defect` is from its evaluation."""
    sentence = f"The candidate is broken: {defect} ({where})." if defect else f"Every answer on the {where} is sound."
    return Check(f"sound on {where}", defect is None, sentence)


def knows_labels(champion: Evaluation, candidate: Evaluation) -> Check:
    """Does the candidate have every label of the champion? New labels are allowed."""
    missing = sorted(set(champion.labels) - set(candidate.labels))
    new = len(set(candidate.labels) - set(champion.labels))
    twice = len(candidate.labels) - len(set(candidate.labels))
    sentence = f"The candidate knows the champion's {len(champion.labels)} labels" + (
        f" and {new} new." if new else "."
    )
    if missing:
        sentence = f"The candidate lost {len(missing)} of the champion's labels: {listed(missing)}."
    elif twice:
        sentence = "The candidate has a label twice."
    return Check("labels", not missing and not twice, sentence, len(missing), 0, unit="missing")


def feedback(pair: PairedCounts, thresholds: Thresholds) -> tuple[Check, bool]:
    """The check that the candidate is not significantly worse on the newest feedback; whether it is better there."""
    if pair.total < thresholds.min_feedback:
        sentence = f"Feedback is not checked: {pair.total} texts held out, {thresholds.min_feedback} needed."
        return Check("feedback", True, sentence), False
    gained = pair.p_better < thresholds.significance
    passed = pair.p_worse >= thresholds.significance
    verb = "better" if gained else "worse" if not passed else "not shown to differ"
    sentence = f"On the newest feedback the candidate is {verb}: {_counts(pair)}."
    return Check("feedback", passed, sentence, pair.p_worse, thresholds.significance, "at least", "p-value"), gained


def holdout(pair: PairedCounts, gained: bool, thresholds: Thresholds) -> Iterator[Check]:
    """The three checks that bound the loss on the frozen holdout; a proven gain on feedback relaxes the last two."""
    sentence = f"On the holdout: {_counts(pair)}."
    passed = -pair.points <= thresholds.max_loss + 1e-9
    yield Check(
        "holdout accuracy", passed, sentence, _no_negative_zero(-pair.points), thresholds.max_loss, unit="points lost"
    )

    margin = thresholds.margin_with_gain if gained else thresholds.margin
    possible = -100 * difference_lower_bound(pair.wins, pair.losses, pair.total, thresholds.significance)
    passed = possible <= margin
    confidence = f"{1 - thresholds.significance:.0%}"
    sentence = f"With {confidence} confidence the true loss on the holdout is at most {max(possible, 0):.1f} points."
    if not passed and pair.points >= 0:
        sentence += f" Too few texts to rule out {margin:g}: give a larger holdout, or raise gate.margin."
    yield Check("holdout margin", passed, sentence, possible, margin, unit="points")

    if gained:
        sentence = f"The loss on the holdout, if any ({_p(pair.p_worse)}), is the price of the gain on feedback."
        yield Check("holdout trend", True, sentence)
    else:
        passed = pair.p_worse >= thresholds.significance
        verb = "could be" if passed else "is not"
        sentence = f"The loss on the holdout {verb} chance ({_p(pair.p_worse)}, McNemar's exact test)."
        if pair.points >= 0:
            sentence = "There is no net loss on the holdout."
        yield Check("holdout trend", passed, sentence, pair.p_worse, thresholds.significance, "at least", "p-value")


def label_recall(champion: Evaluation, candidate: Evaluation, where: str, thresholds: Thresholds) -> Check:
    """No label's recall fell by significantly more than `max_recall_loss`."""
    worst: tuple[float, str, float, str] | None = None
    fallen = []
    for label in sorted(set(candidate.truth)):
        own = candidate.of_label(label)
        total = int(own.sum())
        if total < thresholds.min_label_examples:
            continue
        before, after = int(champion.right[own].sum()), int(candidate.right[own].sum())
        losses = int((champion.right & ~candidate.right)[own].sum())
        chance = recall_loss_p_value(losses - (before - after), losses, total, thresholds.max_recall_loss / 100)
        loss = 100 * (before - after) / total
        change = f"{label} fell from {before} to {after} of {total}"
        if chance < thresholds.significance:
            fallen.append(change)
        worst = min(worst or (2.0, "", 0.0, ""), (chance, label, loss, change))
    name = f"recall of each label, {where}"
    if worst is None:
        return Check(name, True, f"No label has {thresholds.min_label_examples} texts in the {where}.")
    loss = worst[2]
    if fallen:
        sentence = f"Recall on the {where}: {listed(fallen)}."
    elif loss <= 0:
        sentence = f"No label lost recall on the {where}."
    else:
        within = "chance explains it" if loss > thresholds.max_recall_loss else "within the bound"
        sentence = f"Recall on the {where}, largest loss: {worst[3]}; {within}."
    return Check(name, not fallen, sentence, _no_negative_zero(loss), thresholds.max_recall_loss, unit="points lost")


def calibration(champion: Evaluation, candidate: Evaluation, thresholds: Thresholds) -> Check:
    """The expected calibration error did not rise by more than `max_calibration_rise`, unless chance explains it."""
    before = 100 * calibration_error(champion.confidence, champion.right)
    after = 100 * calibration_error(candidate.confidence, candidate.right)
    rise = after - before
    passed = rise <= thresholds.max_calibration_rise or _rise_by_chance(champion, candidate, thresholds.significance)
    sentence = f"The calibration error went from {before:.1f} to {after:.1f} points."
    if not passed:
        how = "overconfident" if candidate.confidence.mean() > candidate.accuracy else "underconfident"
        sentence += f" The candidate is {how}."
    elif rise > thresholds.max_calibration_rise:
        sentence += " Chance explains it on a set of this size."
    return Check("calibration", passed, sentence, rise, thresholds.max_calibration_rise, unit="points risen")


def _rise_by_chance(champion: Evaluation, candidate: Evaluation, significance: float) -> bool:
    """Whether the bootstrap's lower bound of the rise is not above 0."""
    before, after = _gaps(champion), _gaps(candidate)

    def rise(drawn: NDArray[Any]) -> float:
        return float(np.abs(drawn @ after).sum() - np.abs(drawn @ before).sum())

    return float(np.quantile(bootstrap(rise, len(candidate.truth)), significance)) <= 0


def _gaps(evaluation: Evaluation) -> NDArray[np.float64]:
    """(texts, bins): correctness (0 or 1) minus confidence, in the bin of the text's confidence, else 0.

    The calibration error of any draw of texts is the sum over bins of the absolute column sums, divided by the texts.
    """
    which = confidence_bins(evaluation.confidence)
    gaps = np.zeros((len(which), CONFIDENCE_BINS))
    gaps[np.arange(len(which)), which] = evaluation.right - evaluation.confidence.astype(np.float64)
    return gaps


def early_answers(candidate: Evaluation, thresholds: Thresholds) -> Iterator[Check]:
    """Are the candidate's early answers, by its linear reader alone, as good as its blend's? None for one reader."""
    parts, total = candidate.parts, len(candidate.truth)
    if parts is None:
        return
    if not (count := int(parts.early.sum())):
        yield Check("early answers", True, "The linear reader answers no text of the holdout alone.")
        return
    early, blended = (logits[parts.early].argmax(1) for logits in (candidate.probabilities, parts.blended))
    right = candidate.right[parts.early]
    blend_right = np.array([candidate.labels[i] for i in blended]) == np.array(candidate.truth)[parts.early]
    differing = int((early != blended).sum())
    chance = share_p_value(differing, count, thresholds.max_early_difference / 100)
    passed = chance >= thresholds.significance
    share = 100 * differing / count
    sentence = f"The linear reader answers {count} of {total} texts alone, {differing} of them unlike the blend."
    if passed and share > thresholds.max_early_difference:
        sentence += " Chance explains so many on a set of this size."
    yield Check("early answers", passed, sentence, share, thresholds.max_early_difference, unit="% differ")

    wins, losses = int((right & ~blend_right).sum()), int((blend_right & ~right).sum())
    worse = mcnemar_p_value(losses, wins)
    passed = worse >= thresholds.significance
    own, whole = (100 * float(part.mean()) for part in (right, blend_right))
    verb = "lower the accuracy" if not passed else "do not lower the accuracy"
    sentence = f"Early answers {verb}: {own:.1f} % are right, {whole:.1f} % by the blend ({wins} won, {losses} lost)."
    yield Check("early accuracy", passed, sentence, worse, thresholds.significance, "at least", "p-value")


def latency(ratios: NDArray[np.float64], thresholds: Thresholds) -> Check:
    """The median ratio of the rounds; fails when a sign test finds it significantly above `max_latency_ratio`."""
    if not len(ratios):
        return Check("latency", True, "There are no two encoders whose latency to compare.")
    median = float(np.median(ratios))
    over = sign_test_p_value(ratios, thresholds.max_latency_ratio) < thresholds.significance
    sentence = f"A text takes {median:.2f} times as long as with the champion, median of {len(ratios)} rounds in turn."
    return Check("latency", not over, sentence, median, thresholds.max_latency_ratio, unit="times")


RANKING_METRICS = ("AUC", "AUC within a user", f"nDCG@{RANKS}")


def ranking(champion: RankerEvaluation, candidate: RankerEvaluation, thresholds: Thresholds) -> Iterator[Check]:
    """AUC over all events, mean AUC and nDCG within a user: for each, checks of observed loss, possible loss and trend.

    The bootstrap resamples users, not events, since those of one user are correlated.
    """
    names, of_user = np.unique(candidate.users, return_inverse=True)
    chosen = candidate.chosen
    confidence = f"{1 - thresholds.significance:.0%}"
    for name, statistic in zip(RANKING_METRICS, (_auc, _user_auc, _user_ndcg), strict=True):
        before = statistic(chosen, champion.scores, of_user, len(names))
        after = statistic(chosen, candidate.scores, of_user, len(names))

        def difference(drawn: NDArray[Any], before: Any = before, after: Any = after) -> float:
            return float(after(drawn) - before(drawn))

        once = np.ones(len(names), int)
        loss = -100.0 * difference(once)
        if np.isnan(loss):
            yield Check(name, False, f"{name} cannot be measured: the holdout needs chosen and unchosen items.")
            continue
        draws = bootstrap(difference, len(names))
        # NaN: a draw in which the metric is not defined, such as one of users who all chose nothing.
        possible, lower_bound = (
            float(v) for v in -100 * np.nanquantile(draws, [thresholds.significance, 1 - thresholds.significance])
        )
        sentence = (
            f"{name} went from {before(once):.4f} to {after(once):.4f} on {len(chosen)} events of {len(names)} users."
        )
        yield Check(
            name,
            loss <= thresholds.max_loss,
            sentence,
            _no_negative_zero(loss),
            thresholds.max_loss,
            unit="points lost",
        )
        sentence = f"With {confidence} confidence the true loss of {name} is at most {max(possible, 0):.1f} points."
        yield Check(
            f"{name}, margin", possible <= thresholds.margin, sentence, possible, thresholds.margin, unit="points"
        )
        verb = "is not" if lower_bound > 0 else "could be"
        sentence = f"The loss of {name} {verb} chance (bootstrap over {len(names)} users)."
        if loss <= 0:
            sentence = f"There is no loss of {name}."
        yield Check(f"{name}, trend", lower_bound <= 0, sentence, lower_bound, 0.0, unit="points lost at least")


Statistic = Callable[[NDArray[Any]], float]


def _auc(chosen: NDArray[Any], scores: NDArray[Any], of_user: NDArray[Any], users: int) -> Statistic:
    """AUC with each user's impressions counted as often as the user was drawn; ties count half.

    sklearn's roc_auc_score gives the same, but sorts in each call, which takes minutes in a bootstrap.
    """
    order = np.argsort(scores, kind="stable")
    tie = np.cumsum(np.r_[0, np.diff(scores[order]) > 0])
    chosen, of_user = chosen[order], of_user[order]

    def weighted(drawn: NDArray[Any]) -> float:
        weights = drawn[of_user]
        won, lost = np.bincount(tie, weights * chosen), np.bincount(tie, weights * ~chosen)
        pairs = won.sum() * lost.sum()
        return float((won * (np.cumsum(lost) - lost / 2)).sum() / pairs) if pairs else float("nan")

    return weighted


def _user_auc(chosen: NDArray[Any], scores: NDArray[Any], of_user: NDArray[Any], users: int) -> Statistic:
    """The mean over users of the AUC within each user's events; users without both outcomes are left out."""
    return _weighted_mean(user_aucs(of_user, chosen, scores))


def _user_ndcg(chosen: NDArray[Any], scores: NDArray[Any], of_user: NDArray[Any], users: int) -> Statistic:
    """The mean over users of nDCG; users who chose nothing are left out."""
    return _weighted_mean(user_ndcgs(of_user, chosen, scores))


def _weighted_mean(of_users: NDArray[np.float64]) -> Statistic:
    counted = np.isfinite(of_users)

    def mean(drawn: NDArray[Any]) -> float:
        weights = drawn[counted]
        return float(np.average(of_users[counted], weights=weights)) if weights.sum() else float("nan")

    return mean


def listed(names: Sequence[str], max_names: int = 5) -> str:
    """Names in a sentence; after `max_names`, only how many more."""
    return ", ".join(names[:max_names]) + (f" and {len(names) - max_names} more" if len(names) > max_names else "")


def _counts(pair: PairedCounts) -> str:
    before, after = (100 * right / pair.total for right in (pair.before, pair.before + pair.wins - pair.losses))
    return f"{after:.1f} % of {pair.total} texts right, {before:.1f} % before ({pair.wins} won, {pair.losses} lost)"


def _p(chance: float) -> str:
    return f"p = {chance:.3f}" if chance >= 0.0005 else "p < 0.001"


def _no_negative_zero(number: float) -> float:
    return number + 0.0
