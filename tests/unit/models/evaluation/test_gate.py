"""The gate lets better and equal candidates through, refuses harm of every kind, and never falls over."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import ndcg_score, roc_auc_score

from export.model import Parts
from models.evaluation.checks import _auc, _gaps, _user_auc, calibration
from models.evaluation.evaluate import Evaluation, RankerEvaluation
from models.evaluation.gate import GateResult, judge, judge_ranker, refusal
from models.evaluation.metrics import calibration_error, ranker_metrics, user_aucs, user_ndcgs
from models.evaluation.report import DATA, write_report
from models.evaluation.significance import (
    difference_lower_bound,
    mcnemar_p_value,
    recall_loss_p_value,
    share_p_value,
)
from models.tasks.thresholds import Thresholds
from tests.helpers.gate_page import Page
from tests.helpers.gate_power import synthetic

TEXTS, LABELS = 432, 27
THRESHOLDS = Thresholds()
HOSTILE = '<script>alert(1)</script>\u202e & "quoted" \'\x00'


def names(verdict: GateResult) -> set[str]:
    return {check.name for check in verdict.failed}


def evaluate(*wrong: int, texts: int = TEXTS, labels: int = LABELS, sharpen: float = 0.0) -> Evaluation:
    """An evaluation that has everything right but the texts numbered in `wrong`."""
    right = np.ones(texts, bool)
    right[list(wrong)] = False
    return synthetic(right, labels, np.random.default_rng(0), sharpen)


CHAMPION = evaluate(*range(16))  # 96.3 %


def against(candidate: Evaluation, champion: Evaluation = CHAMPION, **ratios: np.ndarray) -> GateResult:
    return judge({"holdout": champion}, {"holdout": candidate}, THRESHOLDS, **ratios)


def test_a_better_candidate_is_accepted() -> None:
    verdict = against(evaluate(*range(8)))
    assert verdict.accepted, verdict.sentence
    assert verdict.sentence.startswith("Accepted.")
    assert "8 won, 0 lost" in verdict.sentence


def test_an_equal_candidate_is_accepted_whatever_wobbles() -> None:
    assert against(CHAMPION).accepted
    assert against(evaluate(*range(3, 20))).accepted  # 3 won, 4 lost: a fifth of a point


def test_a_candidate_two_points_worse_is_refused() -> None:
    verdict = against(evaluate(*range(25)))
    assert names(verdict) == {"holdout accuracy", "holdout margin", "holdout trend"}
    assert verdict.sentence.startswith("Refused. On the holdout: 94.2 % of 432 texts right, 96.3 % before")


def test_a_small_but_proven_loss_is_refused() -> None:
    """Half a point is within the margin; but no chance on a large holdout, and release by release it would add up."""
    champion, candidate = evaluate(*range(200), texts=3080), evaluate(*range(218), texts=3080)
    assert names(against(candidate, champion)) == {"holdout trend"}


def test_a_holdout_too_small_to_tell_is_said_to_be() -> None:
    champion = evaluate(1, texts=60, labels=3)
    verdict = against(champion, champion)
    assert names(verdict) == {"holdout margin"}
    assert "larger holdout" in verdict.sentence


def test_a_candidate_that_lost_one_label_is_refused() -> None:
    champion = evaluate(*range(200), texts=3080, labels=77)
    lost = set(range(5, 3080, 77))  # all 40 texts of one label
    elsewhere = sorted(set(range(200)) - lost)  # and as many won: accuracy hides it
    verdict = against(evaluate(*lost, *elsewhere[40:], texts=3080, labels=77), champion)
    assert names(verdict) == {"recall of each label, holdout"}
    assert "label 5 fell from 37 to 0 of 40" in verdict.sentence


@pytest.mark.parametrize(("losses", "passes"), [(1, True), (2, True), (3, False), (8, False)])
def test_eight_examples_have_the_say_of_eight(losses: int, passes: bool) -> None:
    champion = evaluate(texts=800, labels=100)  # 8 texts a label
    candidate = evaluate(*range(7, 7 + 100 * losses, 100), texts=800, labels=100)
    verdict = against(candidate, champion)
    assert ("recall of each label, holdout" not in names(verdict)) == passes


def test_a_label_with_a_few_examples_has_no_say() -> None:
    champion = evaluate(texts=800, labels=200)  # 4 texts a label, fewer than min_label_examples
    verdict = against(evaluate(*range(7, 800, 200), texts=800, labels=200), champion)
    assert verdict.accepted, verdict.sentence


def test_an_overconfident_candidate_is_refused() -> None:
    champion = evaluate(*range(60))
    verdict = against(evaluate(*range(60), sharpen=0.95), champion)
    assert names(verdict) == {"calibration"}
    assert "overconfident" in verdict.sentence


def test_calibration_on_a_small_set_is_allowed_to_wobble() -> None:
    """Forty models that differ by chance alone: many rise by more than the bound on 60 texts, hardly any is refused."""

    def drawn(seed: int) -> Evaluation:
        return synthetic(np.random.default_rng(99 + seed).permutation(60) >= 9, 3, np.random.default_rng(seed))

    models = sorted(map(drawn, range(40)), key=lambda e: calibration_error(e.confidence, e.right))
    found = [calibration(models[10], model, THRESHOLDS) for model in models]
    assert sum((check.value or 0.0) > THRESHOLDS.max_calibration_rise for check in found) >= 10
    assert sum(not check.passed for check in found) <= 3


def test_the_calibration_error_of_a_draw_is_that_of_its_texts() -> None:
    evaluation = synthetic(np.random.default_rng(1).random(200) < 0.8, 3, np.random.default_rng(2))
    drawn = np.random.default_rng(3).integers(0, 4, 200)
    rows = np.repeat(np.arange(200), drawn)
    expected = calibration_error(evaluation.confidence[rows], evaluation.right[rows])
    assert np.abs(drawn @ _gaps(evaluation)).sum() / drawn.sum() == pytest.approx(expected, abs=1e-6)


def test_a_slow_candidate_is_refused_and_a_busy_moment_is_not() -> None:
    slow = against(CHAMPION, ratios=np.full(31, 1.4))
    assert names(slow) == {"latency"}
    assert "1.40 times" in slow.sentence
    assert against(CHAMPION, ratios=np.r_[np.full(16, 1.3), np.full(15, 1.0)]).accepted


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(poison: float) -> None:
    broken = Evaluation(CHAMPION.labels, CHAMPION.truth, CHAMPION.probabilities.copy())
    broken.probabilities[7, 3] = poison
    verdict = against(broken)
    assert names(verdict) == {"sound on holdout"}
    assert "1 of 432 texts are not finite" in verdict.sentence
    assert names(against(CHAMPION, broken)) == {"champion"}


def test_wrong_shapes_constant_answers_and_missing_labels_are_refused() -> None:
    labels, truth, probabilities = CHAMPION.labels, CHAMPION.truth, CHAMPION.probabilities
    assert "shape" in against(Evaluation(labels, truth, probabilities[:, :5])).sentence
    assert "shape" in against(Evaluation(labels, truth, probabilities[0])).sentence
    assert "whatever the text" in against(Evaluation(labels, truth, np.eye(27, dtype=np.float32)[[4] * 432])).sentence
    renamed = Evaluation(("other", *labels[1:]), truth, probabilities)
    assert "labels" in names(against(renamed))
    nothing = Evaluation(labels, (), np.zeros((0, 27), np.float32))
    assert not against(nothing, nothing).accepted


def feedback(texts: int, champion_wrong: int, candidate_wrong: int, **candidate: Evaluation) -> GateResult:
    wrong = range(texts - 1, texts - 1 - champion_wrong, -1)
    return judge(
        {"holdout": CHAMPION, "feedback": evaluate(*wrong, texts=texts)},
        {
            "holdout": candidate.get("holdout", CHAMPION),
            "feedback": evaluate(*list(wrong)[:candidate_wrong], texts=texts)
            if candidate_wrong <= champion_wrong
            else evaluate(*range(texts - 1, texts - 1 - candidate_wrong, -1), texts=texts),
        },
        THRESHOLDS,
    )


def test_what_feedback_says() -> None:
    gained = feedback(100, 40, 10)
    assert gained.accepted
    assert "newest feedback the candidate is better: 90.0 %" in gained.sentence
    assert names(feedback(100, 10, 25)) >= {"feedback"}
    assert feedback(100, 10, 12).accepted
    few = feedback(12, 0, 12)
    assert few.accepted
    assert any("is not checked" in check.sentence for check in few.reasons)


def test_a_proven_gain_buys_a_wider_margin_but_no_visible_loss() -> None:
    unsure = evaluate(*range(10, 30))  # 10 won, 14 lost: 0.9 points, at most 2.8
    assert names(against(unsure)) == {"holdout margin"}
    assert feedback(100, 40, 10, holdout=unsure).accepted
    worse = evaluate(*range(21))  # 5 lost: 1.2 points
    assert "holdout accuracy" in names(feedback(100, 40, 10, holdout=worse))


def test_a_new_label_counts_against_the_champion_that_lacks_it() -> None:
    labels = (*CHAMPION.labels, "refund_in_points")
    wider = np.pad(CHAMPION.probabilities, ((0, 0), (0, 1)))
    truth = ("refund_in_points",) * 30
    old = Evaluation(CHAMPION.labels, truth, CHAMPION.probabilities[:30])
    new = Evaluation(labels, truth, np.eye(28, dtype=np.float32)[[27] * 28 + [0] * 2] * 0.9 + np.float32(0.1 / 28))
    after = {"holdout": Evaluation(labels, CHAMPION.truth, wider), "feedback": new}
    verdict = judge({"holdout": CHAMPION, "feedback": old}, after, THRESHOLDS)
    assert verdict.accepted, verdict.sentence
    assert "93.3 % of 30 texts right, 0.0 % before" in verdict.sentence


def two_readers(
    final: Evaluation, *, early: int, blend_wrong: range = range(0), blend_differs: range = range(0)
) -> Evaluation:
    """`final` as a model of two readers, which answers the last `early` texts early.

    There the blend gives another label to the texts of both ranges: a wrong one, and the true one.
    """
    numbers = np.array([final.labels.index(label) for label in final.truth])
    blended = final.probabilities.argmax(1)
    blended[list(blend_wrong)] = (numbers[list(blend_wrong)] + 1) % len(final.labels)
    blended[list(blend_differs)] = numbers[list(blend_differs)]
    logits = np.eye(len(final.labels), dtype=np.float32)[blended]
    is_early = np.arange(len(numbers)) >= len(numbers) - early
    parts = Parts(encoder=logits, linear=final.probabilities, blended=logits, early=is_early)
    return Evaluation(final.labels, final.truth, final.probabilities, final.shown_as, parts)


def test_early_answers_are_held_against_the_blend() -> None:
    candidate = two_readers(CHAMPION, early=300, blend_wrong=range(200, 204))
    verdict = against(candidate)
    assert verdict.accepted, verdict.sentence
    sentences = {check.name: check.sentence for check in verdict.reasons}
    assert sentences["early answers"].startswith("The linear reader answers 300 of 432 texts alone, 4 of them unlike")
    assert sentences["early accuracy"].endswith("100.0 % are right, 98.7 % by the blend (4 won, 0 lost).")
    many = against(two_readers(CHAMPION, early=300, blend_wrong=range(200, 215)))
    assert names(many) == {"early answers"}, "they are right, but not what the version was chosen for"
    assert against(two_readers(CHAMPION, early=10, blend_wrong=range(425, 426))).accepted, "one of ten may be chance"


def test_a_candidate_whose_early_answers_are_wrong_is_refused_although_its_blend_is_right() -> None:
    """Its final answers are those of the champion: what early answers lose, the encoder has gained."""
    final = evaluate(*range(416, 432))
    verdict = against(two_readers(final, early=300, blend_differs=range(416, 432)), final)
    assert names(verdict) == {"early answers", "early accuracy"}
    assert "Early answers lower the accuracy: 94.7 % are right, 100.0 % by the blend" in verdict.failed[1].sentence


def test_models_of_one_and_of_two_readers_are_compared() -> None:
    both = two_readers(CHAMPION, early=300)
    for champion, candidate in ((CHAMPION, both), (both, CHAMPION), (both, both)):
        assert against(candidate, champion).accepted
    none_early = against(two_readers(CHAMPION, early=0))
    assert none_early.accepted
    assert any("answers no text of the holdout alone" in check.sentence for check in none_early.reasons)


def test_the_report_has_the_figures_of_both_readers(tmp_path: Path) -> None:
    page = write_report(against(two_readers(CHAMPION, early=300)), tmp_path, title="intent")
    (held_out,) = json.loads((tmp_path / DATA).read_text())["sets"]
    assert held_out["readers"]["early.share"] == [None, 0.6944]
    assert held_out["readers"]["early.accuracy"] == [None, 1.0]
    assert held_out["readers"]["encoder.accuracy"] == held_out["readers"]["linear.accuracy"] == [None, 0.963]
    shown = Page(page).text
    assert "answered early, by the linear reader" in shown
    assert "69.4 %" in shown
    write_report(against(CHAMPION), tmp_path, title="intent")
    assert json.loads((tmp_path / DATA).read_text())["sets"][0]["readers"] == {}


# The statistics themselves.


def test_the_tests_against_figures_worked_out_by_hand() -> None:
    assert mcnemar_p_value(0, 0) == 1.0
    assert mcnemar_p_value(5, 0) == pytest.approx(1 / 32)
    assert mcnemar_p_value(3, 1) == pytest.approx(5 / 16)
    assert recall_loss_p_value(0, 1, 8, 0.1) == pytest.approx(1 - 0.9**8)
    assert recall_loss_p_value(2, 2, 8, 0.1) == 1.0
    assert share_p_value(1, 10, 0.02) == pytest.approx(1 - 0.98**10)
    assert share_p_value(0, 0, 0.02) == share_p_value(0, 50, 0.02) == 1.0


@pytest.mark.parametrize(("wins", "losses", "total"), [(8, 9, 432), (3, 0, 40), (0, 5, 40), (60, 62, 3080), (0, 0, 30)])
def test_the_bound_is_where_the_likelihood_says(wins: int, losses: int, total: int) -> None:
    """Tango's closed form against the score of a numerically maximized likelihood, at the bound it returns."""
    bound = difference_lower_bound(wins, losses, total, 0.05)

    def surprise(lose: float) -> float:
        same = (total - wins - losses) * np.log(1 - 2 * lose - bound)
        won = wins * np.log(lose + bound) if wins else 0.0
        lost = losses * np.log(lose) if losses else 0.0
        return float(-(won + lost + same))

    edges = (max(0.0, -bound) + 1e-12, (1 - bound) / 2 - 1e-12)
    lose = minimize_scalar(surprise, bounds=edges, method="bounded", options={"xatol": 1e-13}).x
    spread = np.sqrt(total * (2 * lose + bound - bound**2))
    assert (wins - losses - total * bound) / spread == pytest.approx(1.6449, abs=2e-3)
    assert bound < (wins - losses) / total


def test_ends_of_the_bound() -> None:
    assert difference_lower_bound(0, 10, 10, 0.05) == -1.0
    assert -1.0 <= difference_lower_bound(1, 0, 1, 0.05) <= 1.0
    assert 0.98 < difference_lower_bound(432, 0, 432, 0.05) < 1.0


# Rankers.


def test_auc_of_a_draw_is_sklearns() -> None:
    rng = np.random.default_rng(5)
    chosen, scores = rng.random(400) < 0.3, rng.integers(0, 20, 400).astype(float)  # ties
    of_user, drawn = np.arange(400) % 40, rng.integers(0, 4, 40)
    expected = roc_auc_score(chosen, scores, sample_weight=drawn[of_user])
    assert _auc(chosen, scores, of_user, 40)(drawn) == pytest.approx(expected)
    own = ranker_metrics(of_user, chosen, scores)["user_auc"]
    assert _user_auc(chosen, scores, of_user, 40)(np.ones(40, int)) == pytest.approx(own, abs=1e-4)


def test_metrics_within_users_are_sklearns() -> None:
    rng = np.random.default_rng(6)
    users, chosen, scores = rng.integers(0, 30, 300), rng.random(300) < 0.4, rng.integers(0, 6, 300).astype(float)
    chosen[users == 3] = True
    found, ranked = user_aucs(users, chosen, scores), user_ndcgs(users, chosen, rng.permutation(300).astype(float))
    assert np.isnan([found[3], ranked[3]]).all()
    for user in set(range(30)) - {3}:
        own = users == user
        if 0 < chosen[own].sum() < own.sum():
            assert found[user] == pytest.approx(roc_auc_score(chosen[own], scores[own]))
    untied = rng.permutation(300).astype(float)
    own = users == 5
    expected = ndcg_score([chosen[own].astype(float)], [untied[own]], k=10)
    assert user_ndcgs(users, chosen, untied)[5] == pytest.approx(expected)


def impressions(quality: float, seed: int) -> RankerEvaluation:
    rng = np.random.default_rng(7)
    chosen = rng.random(3000) < 0.3
    noise = np.random.default_rng(seed).normal(size=3000) * 0.3 + rng.normal(size=3000)
    return RankerEvaluation(np.arange(3000) % 300, chosen, quality * chosen + noise)


def test_rankers_are_judged_by_auc() -> None:
    champion = impressions(1.0, 1)
    assert judge_ranker(champion, champion, THRESHOLDS).accepted
    assert judge_ranker(champion, impressions(1.0, 2), THRESHOLDS).accepted
    assert judge_ranker(champion, impressions(1.3, 2), THRESHOLDS).accepted
    worse = judge_ranker(champion, impressions(0.8, 2), THRESHOLDS)
    assert names(worse) >= {"AUC", "AUC, margin", "AUC, trend", "AUC within a user", "nDCG@10"}
    slow = judge_ranker(champion, champion, THRESHOLDS, np.full(31, 2.0))
    assert names(slow) == {"latency"}


def users_of_other_rates(know_users: float, know_items: float) -> RankerEvaluation:
    """300 users who choose little or much; scores know so much of the user's rate, and of what the user prefers."""
    rng = np.random.default_rng(8)
    users = np.repeat(np.arange(300), 20)
    rate, taste = rng.normal(size=300)[users], rng.normal(size=6000)
    chosen = rng.random(6000) < 1 / (1 + np.exp(1 - rate - taste))
    return RankerEvaluation(users, chosen, know_users * rate + know_items * taste + 0.2 * rng.normal(size=6000))


def test_a_ranker_that_gains_auc_and_orders_each_users_items_worse_is_refused() -> None:
    """Knowing who chooses much raises AUC over all events, and helps no user."""
    champion, candidate = users_of_other_rates(0.0, 1.0), users_of_other_rates(1.0, 0.3)
    result = judge_ranker(champion, candidate, THRESHOLDS)
    lost = {f"{metric}{check}" for metric in ("AUC within a user", "nDCG@10") for check in ("", ", margin", ", trend")}
    assert names(result) == lost
    auc = next(check for check in result.reasons if check.name == "AUC")
    assert auc.value is not None
    assert auc.value < -2  # points lost
    assert re.match(
        r"Refused\. AUC within a user went from 0\.\d+ to 0\.\d+ on 6000 events of 300 users\.", result.sentence
    )
    back = judge_ranker(candidate, champion, THRESHOLDS)
    assert names(back) == {"AUC", "AUC, margin", "AUC, trend"}


def test_rankers_are_compared_where_most_draws_of_users_have_no_metric() -> None:
    """Two of 40 users chose anything: a draw may have neither."""
    users, rng = np.repeat(np.arange(40), 5), np.random.default_rng(9)
    scores = rng.normal(size=200)
    chosen = (users < 2) & (np.arange(200) % 5 == 0)
    same = RankerEvaluation(users, chosen, scores)
    result = judge_ranker(same, same, THRESHOLDS)
    assert result.accepted
    assert "nan" not in " ".join(check.sentence for check in result.reasons)


def test_broken_rankers_are_refused() -> None:
    champion = impressions(1.0, 1)
    for scores in (champion.scores * np.nan, champion.scores * 0, champion.scores[:5]):
        broken = RankerEvaluation(champion.users, champion.chosen, scores)
        assert names(judge_ranker(champion, broken, THRESHOLDS)) == {"sound on holdout"}
        assert names(judge_ranker(broken, champion, THRESHOLDS)) == {"champion"}
    unchosen = RankerEvaluation(champion.users, np.zeros(3000, bool), champion.scores)
    assert not judge_ranker(unchosen, unchosen, THRESHOLDS).accepted


def test_the_page_escapes_hostile_texts_and_loads_nothing(tmp_path: Path) -> None:
    labels = ("a<img src=x onerror=alert(1)>", 'b" onload="alert(1)')
    truth = tuple(labels[i % 2] for i in range(200))
    right = np.eye(2, dtype=np.float32)[[i % 2 for i in range(200)]] * 0.8 + 0.1
    wrong = right.copy()
    wrong[:30] = wrong[:30, ::-1]
    shown_as = tuple(HOSTILE * 20 for _ in range(200))
    before, after = Evaluation(labels, truth, right, shown_as), Evaluation(labels, truth, wrong, shown_as)
    verdict = against(after, before)
    page = write_report(verdict, tmp_path, title=HOSTILE, facts={HOSTILE: HOSTILE})
    shown = Page(page)
    assert HOSTILE in shown.text
    assert "onerror=alert(1)" in shown.text
    assert shown.tags.isdisjoint({"script", "img", "link", "iframe", "object", "a", "form"})
    assert not {name for name in shown.attributes if name.startswith("on") or name in ("src", "href")}
    assert "url(" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "verdict",
    [
        refusal("export", "The export failed: <b>an answer</b> depends on its batch-mates."),
        judge_ranker(impressions(1.0, 1), impressions(0.8, 2), THRESHOLDS),
        against(CHAMPION),
        feedback(100, 40, 10),
    ],
    ids=["refusal", "ranker", "same", "feedback"],
)
def test_every_kind_of_verdict_has_a_page(verdict: GateResult, tmp_path: Path) -> None:
    page = write_report(verdict, tmp_path, title="intent")
    assert ("Accepted" if verdict.accepted else "Refused") in Page(page).text
    data = json.loads((tmp_path / DATA).read_text())
    assert [check["name"] for check in data["checks"]] == [check.name for check in verdict.reasons]
    assert {check["limit"] for check in data["checks"]} <= {"at most", "at least"}


def test_thresholds_refuse_typos() -> None:
    with pytest.raises(ValueError, match="extra"):
        Thresholds(most_los=3)  # type: ignore[call-arg]
