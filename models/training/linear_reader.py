"""Train the linear reader (export/linear.py): TF-IDF of token n-grams, and one logistic regression a label.

Each label is a small problem of its own, which liblinear solves in its dual in milliseconds. On 8,000 texts of 77
labels that takes a fifth of the time of one multinomial problem with its 1.6 million weights, and the answers are
better. The blend (blend.py) calibrates them. docs/decisions/0035-two-readers.md has the figures.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_matrix
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from export.linear import Floats, Keys, LinearReader, Vocabulary, ngram_keys

MAX_LABELS = 500
"""with more, the weights of a useful number of n-grams take many megabytes"""
MAX_TEXTS = 50_000
"""to fit on: with more, a linear model hardly changes"""
FOLDS = 3
_MAX_WEIGHTS = 4_000_000  # 8 MB
_MAX_NGRAMS = 100_000
# Bounds of one fit's time: n-grams in all texts, times labels. A million take a tenth of a second.
_MAX_WORK, _MAX_WORK_OF_CHOICE = 200e6, 15e6
_MIN_FACTOR = 40  # labels: with fewer, an n-gram takes as long to find as to fit on, and its memory is what is bounded
_MIN_OF_LABEL = 20  # texts that a label keeps when texts are drawn
_TOLERANCE, _MAX_STEPS = 0.1, 100
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.02, 50.0

Rows = Sequence[Any]  # of token ids: tuples, or models.training.tokens.TokenRows
Truth = NDArray[np.intp]
Step = Callable[[], None]
"""called after the fit of each label"""


@dataclass(frozen=True)
class LinearSettings:
    """What is chosen on validation texts. `regularization` is scikit-learn's C: a large one regularizes little."""

    max_ngram: int = 2
    sublinear: bool = True
    regularization: float = 40.0


ALTERNATIVES: tuple[dict[str, float], ...] = (
    {"max_ngram": 1},
    {"regularization": 10.0},
    {"regularization": 160.0},
    {"sublinear": False},
)


def choose_settings(
    rows: Rows, truth: Truth, validation: Rows, true: Truth, labels: int, step: Step = lambda: None
) -> LinearSettings:
    """The settings with the smallest log loss on validation texts, found by one change after the other.

    At the best temperature, since the blend will choose one. Of many texts, some are drawn to fit on.
    """
    drawn = draw_texts(truth, _affordable(rows, labels, _MAX_WORK_OF_CHOICE))
    rows, truth = [rows[i] for i in drawn.tolist()], truth[drawn]

    def loss(settings: LinearSettings) -> float:
        logits = read_all(fit_linear_reader(rows, truth, labels, settings, step), validation)
        return tempered_loss(logits, true)

    best = LinearSettings()
    smallest = loss(best)
    for change in ALTERNATIVES:
        tried = replace(best, **change)  # type: ignore[arg-type]
        if (found := loss(tried)) < smallest:
            best, smallest = tried, found
    return best


def tempered_loss(logits: Floats, truth: Truth) -> float:
    """The log loss of the logits, (texts, labels), times the factor that makes it smallest."""

    def loss(logarithm: float) -> float:
        logarithms = log_softmax(np.exp(logarithm) * logits, axis=1)
        return -float(logarithms[np.arange(len(truth)), truth].mean())

    bounds = (np.log(_MIN_TEMPERATURE), np.log(_MAX_TEMPERATURE))
    return float(minimize_scalar(loss, bounds=bounds, method="bounded").fun)


def fit_linear_reader(
    rows: Rows, truth: Truth, labels: int, settings: LinearSettings, step: Step = lambda: None
) -> LinearReader:
    """A reader of `labels` labels, from texts' token ids and the number of each text's label, (texts,).

    A label without texts gets the logit of a very rare one, whatever the text. Of more texts than a minute allows,
    some are drawn. Runs in one thread; the same texts give the same reader.
    """
    drawn = draw_texts(truth, min(MAX_TEXTS, _affordable(rows, labels, _MAX_WORK)))
    rows, truth = [rows[i] for i in drawn.tolist()], truth[drawn]
    vocabulary, matrix = ngram_features(rows, labels, settings)
    weights = np.zeros((len(vocabulary.keys), labels), np.float16)
    bias = np.full(labels, -np.log(len(rows) + 1), np.float32)
    found, counts = np.unique(truth, return_counts=True)
    for label, count in zip(found.tolist(), counts.tolist(), strict=True):
        if count < len(rows):
            model = _fitted(matrix, truth == label, settings)
            weights[:, label], bias[label] = model.coef_[0], model.intercept_[0]
        else:  # all texts have it
            bias[label] = np.log(len(rows) + 1)
        step()
    return LinearReader(vocabulary, weights, bias)


def out_of_fold(
    rows: Rows, truth: Truth, labels: int, settings: LinearSettings, step: Step = lambda: None
) -> tuple[Floats, NDArray[np.float64]]:
    """The logits, (texts, labels), and shares of known n-grams, (texts,), by readers that were fitted without the text.

    Rows of one text are in one fold. Where all texts are the same, there is no such reader: zeros.
    """
    fold = np.array([crc32(np.asarray(ids, np.int32).tobytes()) % FOLDS for ids in rows])
    logits, known = np.zeros((len(rows), labels), np.float32), np.zeros(len(rows))
    for number in range(FOLDS):
        others, unseen = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if not (others.size and unseen.size):
            continue
        reader = fit_linear_reader([rows[i] for i in others.tolist()], truth[others], labels, settings, step)
        for i in unseen.tolist():
            logits[i], known[i] = reader.read(rows[i])
    return logits, known


def read_all(reader: LinearReader, rows: Rows) -> Floats:
    """The logits of all texts, (texts, labels)."""
    return np.stack([reader.read(ids).logits for ids in rows])


def draw_texts(truth: Truth, count: int) -> NDArray[np.intp]:
    """The numbers of `count` texts, in ascending order, drawn at random; a label keeps 20 of its texts if it can.

    All, when there are no more than `count`.
    """
    if len(truth) <= count:
        return np.arange(len(truth))
    shuffled = np.random.default_rng(0).permutation(len(truth))
    by_label = shuffled[np.argsort(truth[shuffled], kind="stable")]
    _, first, sizes = np.unique(truth[by_label], return_index=True, return_counts=True)
    rank = np.empty(len(truth), np.intp)
    rank[by_label] = np.arange(len(truth)) - np.repeat(first, sizes)
    # Each label's first texts, one round of labels after the other; then the rest as it was shuffled.
    order = shuffled[np.argsort(np.minimum(rank[shuffled], _MIN_OF_LABEL), kind="stable")]
    return np.sort(order[:count])


def _affordable(rows: Rows, labels: int, work: float) -> int:
    """How many of the texts a fit of so much work can have."""
    ngrams = 2 * sum(map(len, rows)) / max(len(rows), 1)
    return max(int(work / (max(ngrams, 1) * max(labels, _MIN_FACTOR))), labels)


def _fitted(matrix: csr_matrix, mine: NDArray[np.bool_], settings: LinearSettings) -> LogisticRegression:
    model = LogisticRegression(
        C=settings.regularization, solver="liblinear", dual=True, tol=_TOLERANCE, max_iter=_MAX_STEPS, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the validation texts say what is good enough
        return model.fit(matrix, mine)


def ngram_features(rows: Rows, labels: int, settings: LinearSettings) -> tuple[Vocabulary, csr_matrix]:
    """The n-grams of the texts, and what `Vocabulary.features` has of each text: (texts, n-grams).

    The most frequent n-grams, where the bounds allow no more.
    """
    keys, counts = _counts(rows, settings.max_ngram)
    texts = np.bincount(counts.indices, minlength=len(keys))
    kept = np.sort(np.argsort(-texts, kind="stable")[: min(_MAX_NGRAMS, _MAX_WEIGHTS // labels)])
    keys, texts, counts = keys[kept], texts[kept], counts[:, kept]
    idf = (np.log((1 + len(rows)) / (1 + texts)) + 1).astype(np.float32)  # smoothed, as scikit-learn's
    values, of_ngram = counts.data.astype(np.float64), idf[counts.indices].astype(np.float64)
    # Serving does not add up what occurs twice in a text unless it is sublinear: neither does the length.
    squares = (1 + np.log(values)) ** 2 if settings.sublinear else values
    matrix = csr_matrix((squares * of_ngram**2, counts.indices, counts.indptr), counts.shape)
    length = np.sqrt(np.asarray(matrix.sum(1)).ravel())
    matrix.data = (1 + np.log(values) if settings.sublinear else values) * of_ngram
    matrix.data /= np.repeat(length, np.diff(matrix.indptr))
    return Vocabulary(keys, idf, max_ngram=settings.max_ngram, sublinear=settings.sublinear), matrix


def _counts(rows: Rows, max_ngram: int) -> tuple[Keys, csr_matrix]:
    """All n-grams of the texts, sorted, and how often each text has each, (texts, n-grams)."""
    of_rows = [ngram_keys(ids, max_ngram) for ids in rows]
    ends = np.cumsum([len(found) for found in of_rows])
    keys, columns = np.unique(np.concatenate(of_rows), return_inverse=True)
    starts = np.concatenate(([0], ends))
    counts = csr_matrix((np.ones(len(columns), np.int32), columns, starts), (len(rows), len(keys)))
    counts.sum_duplicates()
    return keys, counts
