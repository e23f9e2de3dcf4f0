"""Train the linear reader (export/linear.py): TF-IDF of token n-grams and multinomial logistic regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from export.linear import Floats, LinearReader, Vocabulary, ngram_keys

MAX_LABELS = 500
"""with more, a fit takes minutes, and the weights of a useful number of n-grams many megabytes"""
_MAX_WEIGHTS = 4_000_000  # 8 MB
_MAX_NGRAMS = 100_000
# To fit on: with more, a linear model hardly changes, and the fit takes minutes.
_MAX_TEXTS = 50_000
_TOLERANCE, _MAX_STEPS = 1e-3, 100
_FOLDS = 3

Rows = Sequence[Sequence[int]]
Truth = NDArray[np.intp]


@dataclass(frozen=True)
class LinearSettings:
    """What is chosen on validation texts. `regularization` is scikit-learn's C: a large one regularizes little."""

    max_ngram: int = 2
    sublinear: bool = True
    regularization: float = 20.0


_ALTERNATIVES: tuple[dict[str, float], ...] = (
    {"max_ngram": 1},
    {"regularization": 5.0},
    {"regularization": 60.0},
    {"sublinear": False},
)


def choose_settings(rows: Rows, truth: Truth, validation: Rows, true: Truth, labels: int) -> LinearSettings:
    """The settings with the smallest log loss on validation texts, found by one change after the other."""

    def loss(settings: LinearSettings) -> float:
        logits = read_all(fit_linear_reader(rows, truth, labels, settings), validation)
        return float(-log_softmax(logits, axis=1)[np.arange(len(true)), true].mean())

    best = LinearSettings()
    smallest = loss(best)
    for change in _ALTERNATIVES:
        tried = replace(best, **change)  # type: ignore[arg-type]
        if (found := loss(tried)) < smallest:
            best, smallest = tried, found
    return best


def fit_linear_reader(rows: Rows, truth: Truth, labels: int, settings: LinearSettings) -> LinearReader:
    """A reader of `labels` labels, from texts' token ids and the number of each text's label, (texts,).

    A label without texts gets the lowest logit. Of more than 50,000 texts, so many are drawn.
    """
    if len(rows) > _MAX_TEXTS:
        drawn = np.random.default_rng(0).permutation(len(rows))[:_MAX_TEXTS]
        rows, truth = [rows[i] for i in drawn], truth[drawn]
    vocabulary = vocabulary_of(rows, labels, settings)
    weights = np.zeros((len(vocabulary.keys), labels), np.float16)
    bias = np.zeros(labels, np.float32)
    if len(np.unique(truth)) > 1:
        model = LogisticRegression(C=settings.regularization, tol=_TOLERANCE, max_iter=_MAX_STEPS)
        model.fit(ngram_matrix(vocabulary, rows), truth)
        coefficients, intercepts = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # scikit-learn has only the second one's row then
            coefficients, intercepts = np.vstack((0 * coefficients, coefficients)), np.append(0.0, intercepts)
        bias[:] = intercepts.min() - np.abs(coefficients).max()
        weights[:, model.classes_], bias[model.classes_] = coefficients.T, intercepts
    return LinearReader(vocabulary, weights, bias)


def out_of_fold(rows: Rows, truth: Truth, labels: int, settings: LinearSettings) -> tuple[Floats, NDArray[np.float64]]:
    """The logits, (texts, labels), and shares of known n-grams, (texts,), by readers that were fitted without the text.

    Of more than 50,000 texts, the last are not read: the result is shorter then.
    """
    count = min(len(rows), _MAX_TEXTS)
    fold = np.random.default_rng(0).permutation(count) % _FOLDS
    logits, known = np.empty((count, labels), np.float32), np.empty(count)
    for number in range(_FOLDS):
        others = np.flatnonzero(fold != number)
        reader = fit_linear_reader([rows[i] for i in others.tolist()], truth[others], labels, settings)
        for i in np.flatnonzero(fold == number).tolist():
            logits[i], known[i] = reader.read(rows[i])
    return logits, known


def read_all(reader: LinearReader, rows: Rows) -> Floats:
    """The logits of all texts, (texts, labels)."""
    return np.stack([reader.read(ids).logits for ids in rows])


def vocabulary_of(rows: Rows, labels: int, settings: LinearSettings) -> Vocabulary:
    """The n-grams of the texts; the most frequent ones, where the bounds allow no more."""
    found = np.concatenate([np.unique(ngram_keys(ids, settings.max_ngram)) for ids in rows])
    keys, texts = np.unique(found, return_counts=True)
    kept = np.sort(np.argsort(-texts, kind="stable")[: min(_MAX_NGRAMS, _MAX_WEIGHTS // labels)])
    keys, texts = keys[kept], texts[kept]
    idf = (np.log((1 + len(rows)) / (1 + texts)) + 1).astype(np.float32)  # smoothed, as scikit-learn's
    return Vocabulary(keys, idf, max_ngram=settings.max_ngram, sublinear=settings.sublinear)


def ngram_matrix(vocabulary: Vocabulary, rows: Rows) -> csr_matrix:
    """The features of all texts, (texts, n-grams)."""
    features = [vocabulary.features(ids) for ids in rows]
    ends = np.cumsum([0, *(len(found.rows) for found in features)])
    columns, values = (np.concatenate([found[i] for found in features]) for i in (0, 1))
    matrix = csr_matrix((values, columns, ends), (len(rows), len(vocabulary.keys)))
    matrix.sum_duplicates()
    return matrix
