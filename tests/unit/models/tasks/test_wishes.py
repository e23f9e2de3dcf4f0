"""Which clauses are wishes, by probabilities that are made."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.tasks.clauses import Span
from models.tasks.wishes import ONE_WISH, Wish, WishRule

LABELS = ("cancel", "refund", "track", "out_of_scope")
SPANS = [Span(10 * i, 10 * i + 9) for i in range(4)]
RULE = WishRule(LABELS, 3)
WHOLE = np.array([0.4, 0.3, 0.2, 0.1], np.float32)


def probabilities(*clauses: Mapping[str, float]) -> NDArray[np.float32]:
    """(clauses, labels): those given; what is left is spread over the others."""
    rows = []
    for clause in clauses:
        rest = (1 - sum(clause.values())) / (len(LABELS) - len(clause))
        rows.append([clause.get(label, rest) for label in LABELS])
    return np.array(rows, np.float32)


def test_two_sure_labels_need_no_encoder() -> None:
    reading = RULE.of_linear(SPANS[:3], probabilities({"cancel": 0.95}, {"out_of_scope": 0.9}, {"refund": 0.97}))
    assert reading.unread == []
    intents = RULE.intents(reading.sure, WHOLE)
    assert [(one["label"], one["start"], one["end"]) for one in intents] == [("cancel", 0, 9), ("refund", 20, 29)]
    assert [round(one["score"], 2) for one in intents] == [0.95, 0.97]


def test_the_same_wish_in_other_words_is_one_wish() -> None:
    assert RULE.of_linear(SPANS[:2], probabilities({"cancel": 0.95}, {"cancel": 0.99})) == ONE_WISH
    assert RULE.of_linear(SPANS[:2], probabilities({"cancel": 0.95}, {"cancel": 0.6})) == ONE_WISH


def test_without_a_clause_that_is_sure_there_is_one_wish() -> None:
    assert RULE.of_linear(SPANS[:2], probabilities({"cancel": 0.8}, {"refund": 0.8})) == ONE_WISH


def test_what_a_text_tells_besides_its_wish_is_none() -> None:
    """Neither a clause that is out of scope nor, among many labels, one of which nothing is known."""
    given = probabilities({"cancel": 0.95}, {"out_of_scope": 0.6, "refund": 0.35})
    assert RULE.of_linear(SPANS[:2], given) == ONE_WISH
    rule = WishRule((*LABELS, *"abcdef"), 3)
    given = np.full((2, 10), 0.1, np.float32)
    given[0], given[0, 0] = 0.005, 0.955
    assert rule.of_linear(SPANS[:2], given) == ONE_WISH
    given[1, 1] = 0.25
    assert rule.of_linear(SPANS[:2], given).unread == [1]


def test_the_encoder_reads_one_clause_of_each_label_that_may_be_another_wish() -> None:
    given = probabilities({"refund": 0.5}, {"cancel": 0.95}, {"refund": 0.8}, {"track": 0.4, "out_of_scope": 0.3})
    reading = RULE.of_linear(SPANS, given)
    assert [wish.label for wish in reading.sure] == [0]
    assert reading.unread == [2, 3]
    more = RULE.of_both([SPANS[2], SPANS[3]], probabilities({"refund": 0.95}, {"track": 0.7}))
    assert [(wish.label, wish.span) for wish in more] == [(1, SPANS[2])]
    assert [one["label"] for one in RULE.intents([*reading.sure, *more], WHOLE)] == ["cancel", "refund"]


def test_the_encoder_may_find_that_there_is_one_wish() -> None:
    reading = RULE.of_linear(SPANS[:2], probabilities({"cancel": 0.95}, {"refund": 0.8}))
    for read in ({"refund": 0.79}, {"out_of_scope": 0.95}, {"cancel": 0.99}):
        assert RULE.intents([*reading.sure, *RULE.of_both([SPANS[1]], probabilities(read))], WHOLE) == []


def test_a_model_without_a_label_out_of_scope_must_be_surer_before_the_encoder_reads() -> None:
    rule = WishRule(LABELS[:3], None)
    given = np.array([[0.95, 0.03, 0.02], [0.05, 0.7, 0.25]], np.float32)
    assert rule.of_linear(SPANS[:2], given) == ONE_WISH
    given[1] = [0.1, 0.8, 0.1]
    assert rule.of_linear(SPANS[:2], given).unread == [1]


def test_a_wish_is_among_the_most_probable_labels_of_the_whole_text() -> None:
    labels = (*LABELS, "invoice", "review")
    rule = WishRule(labels, 3)
    wishes = [Wish(0, 0.95, SPANS[0]), Wish(5, 0.95, SPANS[1])]
    whole = np.array([0.5, 0.1, 0.1, 0.05, 0.2, 0.01], np.float32)
    assert rule.intents(wishes, whole) == []
    whole[5], whole[2] = 0.1, 0.01
    assert [one["label"] for one in rule.intents(wishes, whole)] == ["cancel", "review"]
