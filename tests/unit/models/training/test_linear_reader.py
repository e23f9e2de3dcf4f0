"""The linear reader learns, whatever the corpus; the time and memory of a fit are bounded."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from export.linear import LinearReader
from models.training import linear_reader
from models.training.linear_reader import (
    FOLDS,
    LinearSettings,
    choose_settings,
    draw_texts,
    fit_linear_reader,
    out_of_fold,
    read_all,
    tempered_loss,
)

START, END = 101, 102
Corpus = tuple[list[tuple[int, ...]], NDArray[np.intp]]


def corpus(texts: int, labels: int, seed: int = 0, words: int = 6, wrong: float = 0.0) -> Corpus:
    """Texts of tokens, a third of which their label has to itself; a share of `wrong` labels."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, labels, texts)
    own = 1000 + 10 * truth[:, None] + rng.integers(0, 10, (texts, words // 3))
    shared = 200 + rng.integers(0, 300, (texts, words - words // 3))
    truth = np.where(rng.random(texts) < wrong, rng.integers(0, labels, texts), truth)
    return [(START, *row, END) for row in np.hstack((own, shared)).tolist()], truth


def accuracy(reader: LinearReader, unseen: Corpus) -> float:
    return float((read_all(reader, unseen[0]).argmax(1) == unseen[1]).mean())


@pytest.mark.parametrize("settings", [LinearSettings(), LinearSettings(max_ngram=1), LinearSettings(sublinear=False)])
@pytest.mark.parametrize("labels", [2, 3, 40])
def test_it_learns_what_tells_labels_apart(labels: int, settings: LinearSettings) -> None:
    rows, truth = corpus(60 * labels, labels)
    reader = fit_linear_reader(rows, truth, labels, settings)
    assert reader.weights.shape == (len(reader.vocabulary.keys), labels)
    assert accuracy(reader, corpus(400, labels, seed=1)) > 0.95


@pytest.mark.parametrize("settings", [LinearSettings(), LinearSettings(max_ngram=1), LinearSettings(sublinear=False)])
def test_it_is_trained_on_the_features_that_serving_computes(settings: LinearSettings) -> None:
    rows, _ = corpus(50, 3)
    rows += [(START, 7, 7, 7, 8, 7, 7, END), (START, END)]
    vocabulary, matrix = linear_reader.ngram_features(rows, 3, settings)
    for ids, row in zip(rows, matrix.toarray(), strict=True):
        found = vocabulary.features(ids)
        expected = np.zeros(len(vocabulary.keys))
        np.add.at(expected, found.rows, found.values)
        np.testing.assert_allclose(row, expected, atol=1e-6)
        assert found.known == (ids[1:-1] != () or settings.max_ngram == 2)


def test_the_same_texts_give_the_same_reader() -> None:
    rows, truth = corpus(200, 5)
    one, other = (fit_linear_reader(rows, truth, 5, LinearSettings()) for _ in range(2))
    assert all((one.arrays[name] == other.arrays[name]).all() for name in one.arrays)


def test_a_label_without_texts_is_like_a_very_rare_one() -> None:
    """Not impossible: a version's encoder may know a label of which no text is left."""
    rows, truth = corpus(300, 4)
    logits = read_all(fit_linear_reader(rows, truth, 6, LinearSettings()), rows)
    assert (logits.argmax(1) < 4).all()
    np.testing.assert_allclose(logits[:, 4:], -np.log(301), rtol=1e-6)


def test_a_corpus_of_one_label_and_texts_without_a_token() -> None:
    rows, truth = corpus(30, 1)
    reader = fit_linear_reader(rows, truth, 2, LinearSettings())
    assert (read_all(reader, [*rows, (START, END), (START, 7, END)]).argmax(1) == 0).all()
    empty = [(START, END)] * 10  # as texts of which the tokenizer leaves nothing
    logits = read_all(fit_linear_reader(empty, np.arange(10) % 2, 2, LinearSettings()), empty)
    assert np.isfinite(logits).all()


def test_one_text_a_label_and_equal_texts_of_two_labels() -> None:
    rows, truth = [(START, 500 + i, END) for i in range(20)], np.arange(20)
    logits = read_all(fit_linear_reader(rows, truth, 20, LinearSettings()), rows)
    assert (logits.argmax(1) == truth).all()
    same = [(START, 9, 8, END)] * 50
    logits = read_all(fit_linear_reader(same, np.arange(50) % 2, 2, LinearSettings()), same)
    assert np.ptp(logits[0]) < 0.5, "as likely as not"
    unseen, known = out_of_fold(same, np.arange(50) % 2, 2, LinearSettings())
    assert not unseen.any(), "no fold is without the text"
    assert not known.any()


def test_copies_of_a_text_are_in_one_fold() -> None:
    """Otherwise its reader has seen it, and is surer than it will be of texts from users."""
    rng = np.random.default_rng(0)
    rows = [(START, *rng.integers(200, 5000, 6).tolist(), END) for _ in range(90)]
    truth = rng.integers(0, 2, 90)  # nothing to learn but the texts by heart
    unseen, known = out_of_fold(rows * 4, np.tile(truth, 4), 2, LinearSettings())
    assert known.max() < 0.5
    assert (unseen.argmax(1) == np.tile(truth, 4)).mean() < 0.7


def test_out_of_fold_logits_are_those_of_unseen_texts() -> None:
    rows, truth = corpus(600, 4, wrong=0.2)
    unseen, known = out_of_fold(rows, truth, 4, LinearSettings())
    fresh = corpus(600, 4, seed=1, wrong=0.2)
    reader = fit_linear_reader(rows, truth, 4, LinearSettings())
    assert (unseen.argmax(1) == truth).mean() == pytest.approx(accuracy(reader, fresh), abs=0.06)
    assert known.mean() == pytest.approx(np.mean([reader.read(ids).known for ids in fresh[0]]), abs=0.1)
    assert tempered_loss(read_all(reader, rows), truth) < tempered_loss(unseen, truth)


def test_settings_are_chosen_on_unseen_texts() -> None:
    """Only the order of two tokens tells the two labels apart: single tokens say nothing."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 900)
    noise = rng.integers(200, 220, (900, 2)).tolist()
    rows = [(START, a, *((7, 8) if label else (8, 7)), b, END) for (a, b), label in zip(noise, truth, strict=True)]
    settings = choose_settings(rows[:600], truth[:600], rows[600:], truth[600:], 2)
    assert settings.max_ngram == 2
    words, labels = corpus(600, 3, wrong=0.2)
    assert choose_settings(words[:400], labels[:400], words[400:], labels[400:], 3).regularization == 10.0


def test_a_temperature_does_not_decide_a_choice() -> None:
    truth = np.arange(200) % 4
    logits = (np.random.default_rng(0).normal(size=(200, 4)) + 2 * np.eye(4)[truth]).astype(np.float32)
    assert tempered_loss(5 * logits, truth) == pytest.approx(tempered_loss(logits, truth), abs=1e-4)


def test_texts_are_drawn_so_that_rare_labels_keep_theirs() -> None:
    truth = np.repeat(np.arange(4), (5000, 30, 3, 1))
    assert (draw_texts(truth, 10_000) == np.arange(len(truth))).all()
    drawn = draw_texts(truth, 500)
    assert len(set(drawn.tolist())) == 500
    assert (np.diff(drawn) > 0).all()
    counts = np.bincount(truth[drawn])
    assert counts[1] >= 20
    assert (counts[2], counts[3]) == (3, 1)
    assert len(set(truth[draw_texts(truth, 4)].tolist())) == 4, "one of each before a second of any"


def test_a_fit_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the texts, and a vocabulary of a tenth, are fitted on; steps are told, one a label and fit."""
    monkeypatch.setattr(linear_reader, "_MIN_FACTOR", 1)
    monkeypatch.setattr(linear_reader, "_MAX_WORK", 2 * 8 * 400 * 5)  # 400 texts of 8 tokens, 5 labels
    monkeypatch.setattr(linear_reader, "_MAX_WORK_OF_CHOICE", 2 * 8 * 100 * 5)
    monkeypatch.setattr(linear_reader, "_MAX_WEIGHTS", 5 * 250)
    rows, truth = corpus(4000, 5)
    steps: list[int] = []
    reader = fit_linear_reader(rows, truth, 5, LinearSettings(), lambda: steps.append(1))
    assert len(steps) == 5
    assert len(reader.vocabulary.keys) == 250
    assert reader.vocabulary.idf.max() <= np.log(401 / 2) + 1
    assert accuracy(reader, corpus(400, 5, seed=1)) > 0.9
    choose_settings(rows, truth, rows[:50], truth[:50], 5, lambda: steps.append(1))
    assert len(steps) == 5 + 5 * (1 + len(linear_reader.ALTERNATIVES))
    out_of_fold(rows[:90], truth[:90], 5, LinearSettings(), lambda: steps.append(1))
    assert len(steps) == 5 + 5 * (1 + len(linear_reader.ALTERNATIVES)) + FOLDS * 5


def test_an_interrupt_ends_a_fit() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_linear_reader(*corpus(200, 5), 5, LinearSettings(), interrupt)
