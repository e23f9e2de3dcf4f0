"""Proposals for missing labels, and labels that overlap."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from models.discovery.logged_texts import LoggedText
from models.discovery.new_labels import MIN_TEXTS, cluster_name, find_new_labels, is_unsure
from models.discovery.overlaps import overlapping
from models.feedback.types import GivenLabel

VOUCHERS = [f"the voucher code {word} does not work" for word in ("again", "today", "here", "still", "really", "now")]
INVOICES = [f"{word} send me the invoice as pdf" for word in ("please", "can you", "could you", "now", "hi", "kindly")]


COMMON = np.full(64, 0.05, np.float32)


def unsure(texts: list[str]) -> list[LoggedText]:
    return [LoggedText(str(i), 0, text, {"label": "other", "score": 0.3}, "1") for i, text in enumerate(texts)]


def vectors_of(groups: list[int]) -> np.ndarray:
    """Unit vectors near one axis a group."""
    rng = np.random.default_rng(0)
    rows = np.eye(64, dtype=np.float32)[groups] + 0.02 * rng.standard_normal((len(groups), 64)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def test_groups_are_proposed_with_names_and_what_is_alone_is_not() -> None:
    texts = [*VOUCHERS, *INVOICES, "hello", "is it raining", "cheese"]
    vectors = vectors_of([0] * 6 + [1] * 6 + [2, 3, 4])
    found = find_new_labels(unsure(texts), vectors, COMMON, [*texts, *(f"hello {n}" for n in range(50))])
    assert sorted(len(proposal.texts) for proposal in found) == [6, 6]
    names = {proposal.name for proposal in found}
    assert any("voucher" in name for name in names)
    assert any("invoice" in name for name in names)
    assert all(proposal.cohesion > 0.9 and proposal.taken_for == {"other": 1.0} for proposal in found)


@pytest.mark.parametrize("count", [0, 1, MIN_TEXTS - 1])
def test_few_texts_make_no_proposal(count: int) -> None:
    texts = VOUCHERS[:count]
    assert find_new_labels(unsure(texts), vectors_of([0] * count), COMMON, texts) == []


def test_a_name_has_no_word_of_one_text_and_no_placeholder() -> None:
    texts = ["voucher for [email] from gwendolyn", *(f"voucher {word} [email]" for word in ("a1", "b2", "c3", "d4"))]
    assert cluster_name(texts, Counter(), 100) == "voucher"
    assert cluster_name(["12", "34"], Counter(), 100) == "unnamed"


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ({"label": "a", "score": 0.9, "handoff": True}, True),
        ({"label": "a", "score": 0.7, "handoff": False}, True),
        ({"label": "a", "score": 0.9, "handoff": True, "reason": "out_of_scope"}, True),
        ({"label": "a", "score": 0.9, "handoff": True, "reason": "asked_for_person"}, False),
        ({"label": "a", "score": 0.4}, True),
        ({"label": "a", "score": 0.95}, False),
    ],
)
def test_what_was_handed_off_is_unsure(prediction: dict[str, object], expected: bool) -> None:
    assert is_unsure(prediction) is expected


def given(predicted: str, label: str, count: int, *, trusted: bool = True) -> list[GivenLabel]:
    return [GivenLabel(b"", "agent", label, "id", "text", predicted, trusted)] * count


def test_labels_that_people_change_into_each_other_overlap() -> None:
    labels = [*given("refund", "cancel", 4), *given("cancel", "refund", 4), *given("refund", "refund", 12)]
    nothing = np.zeros((0, 0), np.float32)
    (overlap,) = overlapping([*labels, *given("track", "refund", 1)], [], [], nothing)
    assert (overlap.labels, overlap.corrections, overlap.of_corrections) == (("cancel", "refund"), 8, 21)
    assert overlap.sentence == "cancel and refund: 8 of 21 corrections change one into the other."
    assert overlapping(given("refund", "cancel", 8, trusted=False), [], [], nothing) == []
    assert overlapping(given("refund", "cancel", 2), [], [], nothing) == []  # so few are chance


def test_labels_between_which_the_champion_cannot_decide_overlap() -> None:
    truth = ["a"] * 10 + ["b"] * 10 + ["c"] * 10
    sure = np.array([[0.7, 0.3, 0.0]] * 10 + [[0.3, 0.7, 0.0]] * 10 + [[0.0, 0.02, 0.98]] * 10, np.float32)
    (overlap,) = overlapping([], ["a", "b", "c"], truth, sure)
    assert (overlap.labels, overlap.holdout_texts) == (("a", "b"), 20)
    assert overlap.holdout == pytest.approx(0.3)
    assert overlapping([], ["a", "b", "c"], truth[8:12], sure[8:12]) == []
