"""The linear reader: features, logits, and what it refuses to load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.bundle import Blend, LinearRecord
from export.errors import BundleError
from export.linear import LinearReader, Vocabulary, ngram_keys

START, END = 101, 102
RECORD = LinearRecord(max_ngram=2, sublinear=True, regularization=20, blend=Blend(encoder=1, linear=1, linear_alone=1))


def vocabulary(*texts: list[int], max_ngram: int = 2, sublinear: bool = True) -> Vocabulary:
    keys = np.unique(np.concatenate([ngram_keys([START, *text, END], max_ngram) for text in texts]))
    idf = np.linspace(1, 2, len(keys), dtype=np.float32)
    return Vocabulary(keys, idf, max_ngram=max_ngram, sublinear=sublinear)


def reader(known: Vocabulary, labels: int = 3) -> LinearReader:
    draw = np.random.default_rng(0)
    weights = draw.normal(size=(len(known.keys), labels)).astype(np.float16)
    return LinearReader(known, weights, draw.normal(size=labels).astype(np.float32))


def test_tokens_and_pairs_of_neighbours_have_numbers_of_their_own() -> None:
    keys = ngram_keys([START, 7, 8, 7, END], 2)
    assert len(keys) == 3 + 4  # three tokens; four pairs, with the special tokens at the ends
    assert keys[0] == keys[2]
    assert len(set(keys.tolist())) == 6
    assert ngram_keys([START, 7, 8, 7, END], 1).tolist() == [7, 8, 7]
    assert set(ngram_keys([0, 1, 0], 2)[1:].tolist()).isdisjoint(range(100_000))  # no pair looks like a token


@pytest.mark.parametrize("sublinear", [True, False])
def test_logits_are_those_of_tf_idf(sublinear: bool) -> None:
    known = vocabulary([7, 8, 9], max_ngram=1, sublinear=sublinear)
    given = reader(known)
    counts = np.array([3.0, 1.0, 0.0])  # of 7, 8 and 9
    if sublinear:
        counts[:1] = 1 + np.log(3)
        values = counts * known.idf
        expected = values / np.linalg.norm(values) @ given.weights.astype(np.float64) + given.bias
        np.testing.assert_allclose(given.read([START, 7, 8, 7, 7, END]).logits, expected, rtol=1e-5)
    features = known.features([START, 7, 8, 7, 7, END])
    assert np.linalg.norm(features.values) == pytest.approx(1)
    assert features.known == 1


def test_a_text_of_unknown_ngrams_has_the_bias_alone() -> None:
    given = reader(vocabulary([7, 8]))
    logits, known = given.read([START, 500, END])
    assert known == 0
    assert np.array_equal(logits, given.bias)
    assert given.read([START, END]).known == 0  # no token at all, and a pair that is unknown


def test_the_share_of_known_ngrams() -> None:
    known = vocabulary([7, 8])  # 7, 8, (start 7), (7 8), (8 end)
    assert known.features([START, 7, 8, END]).known == 1
    assert known.features([START, 7, 500, END]).known == pytest.approx(2 / 5)  # 7 and (start 7), of two and three


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    given = reader(vocabulary([7, 8, 9]))
    given.save(tmp_path)
    loaded = LinearReader.load(tmp_path, RECORD, 3)
    ids = [START, 9, 7, 9, END]
    assert np.array_equal(loaded.read(ids).logits, given.read(ids).logits)


def test_a_reader_of_other_labels_is_refused(tmp_path: Path) -> None:
    reader(vocabulary([7, 8]), labels=3).save(tmp_path)
    with pytest.raises(BundleError, match="for 4 labels"):
        LinearReader.load(tmp_path, RECORD, 4)
