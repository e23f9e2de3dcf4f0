"""What becomes of the linear reader's reading, alone and beside the encoder's logits."""

from __future__ import annotations

import numpy as np
import pytest

from export.bundle import Blend, EarlyAnswers, LinearRecord
from export.linear import LinearReader, Reading, Vocabulary
from export.model import Readers

LABELS = ("card", "refund", "out_of_scope")
BLEND = Blend(encoder=0.5, linear=2.0, linear_alone=3.0)
EARLY = EarlyAnswers(above=0.7, min_known=0.8, label_above={"refund": 0.9, "out_of_scope": 1.0})


def readers(early: EarlyAnswers | None = EARLY, **options: bool) -> Readers:
    record = LinearRecord(max_ngram=1, sublinear=True, regularization=20, blend=BLEND, early=early)
    empty = Vocabulary(np.array([5]), np.ones(1, np.float32), max_ngram=1, sublinear=True)
    linear = LinearReader(empty, np.zeros((1, 3), np.float16), np.zeros(3, np.float32))
    return Readers(linear, record, LABELS, **options)


def reading(label: int, probability: float, known: float = 1.0) -> Reading:
    """A reading whose early answer has this probability for the label, the same for the two others."""
    others = (1 - probability) / 2
    logits = np.full(3, np.log(others), np.float32)
    logits[label] = np.log(probability)
    return Reading(logits / np.float32(BLEND.linear_alone), known)


@pytest.mark.parametrize(
    ("given", "answered"),
    [
        (reading(0, 0.71), True),
        (reading(0, 0.69), False),
        (reading(1, 0.89), False),  # its label's own threshold
        (reading(1, 0.91), True),
        (reading(2, 0.999), False),  # a label that is never answered early
        (reading(0, 0.99, known=0.79), False),  # too many unknown n-grams
        (reading(0, 0.99, known=0.80), True),
    ],
)
def test_an_early_answer_is_sure_and_of_known_words(given: Reading, answered: bool) -> None:
    found = readers().early(given)
    assert (found is not None) == answered
    if found is not None:
        np.testing.assert_allclose(found, 3 * given.logits)


def test_there_is_none_where_it_does_not_pay_or_is_switched_off() -> None:
    sure = reading(0, 0.9999)
    assert readers(early=None).early(sure) is None
    assert not readers(early=None).answers_early
    # `early=False` of the constructor is the configuration's `early_answers: off`.
    record_says_yes = readers()
    assert record_says_yes.early(sure) is not None
    off = Readers(record_says_yes.linear, LinearRecord(
        max_ngram=1, sublinear=True, regularization=20, blend=BLEND, early=EARLY), LABELS, early=False)  # fmt: skip
    assert off.early(sure) is None


def test_a_reader_without_an_encoder_answers_everything() -> None:
    only = readers(early=None, only=True)
    assert only.early(reading(2, 0.34, known=0.0)) is not None


def test_the_blend_is_the_weighted_sum_of_logits() -> None:
    encoder, linear = np.array([[1, 2, 3]], np.float32), np.array([[4, 0, -4]], np.float32)
    assert readers().blended(encoder, linear).tolist() == [[8.5, 1.0, -6.5]]
