"""Whether an export moved too many labels: a share that is tested on a sample of texts, which may be small."""

from __future__ import annotations

import pytest

from export.bundle import Parity, Precision
from export.errors import ParityError
from export.heads import MAX_LABELS_MOVED, head_of, moves_too_many_labels


def parity(moved: int, texts: int) -> Parity:
    return Parity(texts=texts, labels_moved=round(moved / texts, 5))


@pytest.mark.parametrize(
    ("precision", "texts", "allowed"),
    [("int8", 5, 1), ("int8", 17, 2), ("int8", 33, 3), ("int8", 500, 22), ("int8", 2000, 73),
     ("fp16", 17, 1), ("fp16", 500, 5), ("fp32", 17, 0), ("fp32", 2000, 5)],
)  # fmt: skip
def test_one_flip_of_a_few_texts_is_no_reason_to_refuse(precision: Precision, texts: int, allowed: int) -> None:
    assert not moves_too_many_labels(parity(allowed, texts), precision)
    assert moves_too_many_labels(parity(allowed + 1, texts), precision)


def test_an_export_as_good_as_allowed_is_refused_rarely_and_one_that_moves_a_third_nearly_always() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    for texts in (17, 60, 500):
        good, bad = (
            np.mean([moves_too_many_labels(parity(int(n), texts), "int8") for n in rng.binomial(texts, share, 2000)])
            for share in (MAX_LABELS_MOVED["int8"], 1 / 3)
        )
        assert good < 0.05
        assert bad > 0.95


def test_a_bundle_that_does_not_say_how_many_texts_there_were_is_judged_by_the_share() -> None:
    assert moves_too_many_labels(Parity(labels_moved=0.031), "int8")
    assert not moves_too_many_labels(Parity(labels_moved=0.029), "int8")


def test_a_refusal_says_what_to_do() -> None:
    with pytest.raises(ParityError, match=r"moves 33\.3% of the holdout's 12 labels.*--precision fp32"):
        head_of("classifier").check(parity(4, 12), "int8")
