"""An explanation sums to what it explains, and the linear reader's part is exact."""

from __future__ import annotations

import numpy as np
import pytest

from export.bundle import Blend, LinearRecord
from export.explain import Numbers, explain, linear_contributions
from export.heads import softmax
from export.linear import LinearReader, Vocabulary, ngram_keys
from export.model import Readers
from export.word_spans import Word

LABELS = ("a", "b", "c")
IDS = (101, 7, 8, 9, 7, 8, 7, 102)  # one token that occurs three times, one pair twice
WORDS = [Word(0, 1, 1, 2), Word(2, 5, 2, 4), Word(6, 7, 4, 5), Word(8, 9, 5, 6), Word(10, 11, 6, 7)]
BLEND = Blend(encoder=0.7, linear=0.4, linear_alone=1.5)


def linear_reader(max_ngram: int, sublinear: bool, unknown: int = 0) -> LinearReader:
    """A reader of random weights that knows the n-grams of IDS and of others, but for the first `unknown`."""
    rng = np.random.default_rng(0)
    known = np.concatenate([ngram_keys(IDS, max_ngram), ngram_keys((101, 3, 5, 102), max_ngram)])
    keys = np.unique(known)[unknown:]
    idf = rng.uniform(1, 5, len(keys)).astype(np.float32)
    weights = rng.normal(size=(len(keys), len(LABELS))).astype(np.float16)
    return LinearReader(
        Vocabulary(keys, idf, max_ngram=max_ngram, sublinear=sublinear),
        weights,
        rng.normal(size=len(LABELS)).astype(np.float32),
    )


def readers(reader: LinearReader) -> Readers:
    vocabulary = reader.vocabulary
    record = LinearRecord(
        max_ngram=2 if vocabulary.max_ngram == 2 else 1, sublinear=vocabulary.sublinear, regularization=1, blend=BLEND
    )
    return Readers(reader, record, LABELS)


def encoder(ids: tuple[int, ...]) -> Numbers:
    """Logits of a text, by no linear rule."""
    return np.array([sum(ids) % 7, len(ids) ** 1.5, ids.count(7) * 2.0])


@pytest.mark.parametrize("sublinear", [True, False])
@pytest.mark.parametrize("max_ngram", [1, 2])
@pytest.mark.parametrize("unknown", [0, 2])
def test_the_linear_reader_s_contributions_sum_to_its_logits(max_ngram: int, sublinear: bool, unknown: int) -> None:
    reader, direction = linear_reader(max_ngram, sublinear, unknown), np.array([1.0, -0.25, -0.75])
    found = linear_contributions(reader, IDS, WORDS, direction)
    assert found.sum() == pytest.approx((reader.read(IDS).logits - reader.bias) @ direction, abs=1e-5)


def test_a_pair_is_shared_by_its_words_and_occurrences_are_equal() -> None:
    """One known n-gram: the pair (7, 8), which occurs twice."""
    pair = np.array([(7 + 1) * (1 << 31) + 8])
    vocabulary = Vocabulary(pair, np.ones(1, np.float32), max_ngram=2, sublinear=True)
    reader = LinearReader(vocabulary, np.array([[4, 0, 0]], np.float16), np.zeros(3, np.float32))
    found = linear_contributions(reader, IDS, WORDS, np.array([1.0, 0, 0]))
    assert found == pytest.approx([1, 1, 1, 1, 0])


def test_a_special_token_leaves_its_half_of_a_pair_to_the_word() -> None:
    pair = np.array([(101 + 1) * (1 << 31) + 7])
    vocabulary = Vocabulary(pair, np.ones(1, np.float32), max_ngram=2, sublinear=False)
    reader = LinearReader(vocabulary, np.array([[4, 0, 0]], np.float16), np.zeros(3, np.float32))
    assert linear_contributions(reader, IDS, WORDS, np.array([1.0, 0, 0])) == pytest.approx([4, 0, 0, 0, 0])


@pytest.mark.parametrize("label", range(3))
@pytest.mark.parametrize("way", ["encoder", "both", "linear"])
def test_a_sum_is_the_log_odds_of_the_answer(way: str, label: int) -> None:
    both = None if way == "encoder" else readers(linear_reader(2, True))

    def answer(ids: tuple[int, ...]) -> Numbers:
        if both is None:
            return encoder(ids)
        return both.blended(encoder(ids), both.linear.read(ids).logits)

    left_out = np.stack([answer(word.left_out(IDS)) for word in WORDS])
    if way == "linear":
        assert both is not None
        found = explain(both, IDS, WORDS, label, both.linear.read(IDS).logits * BLEND.linear_alone, None)
        logits = both.linear.read(IDS).logits * BLEND.linear_alone
    else:
        logits = answer(IDS)
        found = explain(both, IDS, WORDS, label, logits, left_out)
    probability = softmax(logits[None])[0, label]
    assert found.total == pytest.approx(np.log(probability / (1 - probability)), abs=1e-5)
    assert found.contributions.sum() + found.rest == pytest.approx(found.total)


def test_a_constant_of_a_text_s_logits_does_not_matter() -> None:
    """So that logarithms of probabilities will do."""
    both = readers(linear_reader(2, True))
    left_out = np.stack([encoder(word.left_out(IDS)) for word in WORDS])
    plain = explain(both, IDS, WORDS, 1, encoder(IDS), left_out)
    moved = explain(both, IDS, WORDS, 1, encoder(IDS) + 5, left_out - np.arange(5.0)[:, None])
    np.testing.assert_allclose(plain.contributions, moved.contributions, atol=1e-9)


def test_both_readers_count_as_in_the_blend() -> None:
    """Of an encoder that reads nothing, the linear reader's contributions are left, times its factor."""
    both = readers(linear_reader(2, True))
    blended = [both.blended(np.zeros(3, np.float32), both.linear.read(word.left_out(IDS)).logits) for word in WORDS]
    answer = both.blended(np.zeros(3, np.float32), both.linear.read(IDS).logits)
    found = explain(both, IDS, WORDS, 0, answer, np.stack(blended))
    rivals = np.exp(answer[1:]) / np.exp(answer[1:]).sum()
    exact = linear_contributions(both.linear, IDS, WORDS, np.array([1, *-rivals]))
    np.testing.assert_allclose(found.contributions, BLEND.linear * exact, atol=1e-5)


def test_a_text_without_words() -> None:
    found = explain(readers(linear_reader(2, True)), (101, 102), [], 0, encoder(IDS), np.zeros((0, 3)))
    assert found.contributions.size == 0
    assert found.rest == found.total
