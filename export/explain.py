"""Which words made a classifier give its label: the signed contribution of each word to the label's log-odds.

The linear reader's part is exact: a word has its tokens' share of the n-grams' weights. The encoder's part is what the
label loses when the word is left out. Both count as they do in the answer (docs/decisions/0036-explanations.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from export.linear import LinearReader, ngram_keys
from export.model import Model, Readers
from export.tokenizer import Ids
from export.word_spans import Word, words_of

MAX_WORDS = 48
"""of one text's explanation; neighbours in a longer text are taken together, so that the encoder reads it 49 times"""

Logits = NDArray[np.floating]
Numbers = NDArray[np.float64]


class Explanation(NamedTuple):
    """Contributions to the log-odds of one label, log(p / (1 - p)); with `rest` they sum to `total`."""

    contributions: Numbers
    """(words,)"""
    rest: float
    """what no word alone contributes: the label's own weight, and what words do together"""
    total: float
    """the log-odds of the answer's probability"""


def explain(
    readers: Readers | None, ids: Ids, words: Sequence[Word], label: int, answer: Logits, left_out: Logits | None
) -> Explanation:
    """Explain why a text's answer gives `label` its probability.

    - `readers`: the model's.
    - `answer`: (labels,), the answer's logits; like `left_out`, up to a constant for each text, so that the logarithms
      of probabilities will do.
    - `left_out`: (words, labels), those of the text without each of the words, from the encoder blended with the linear
      reader; None for an answer of the linear reader alone.
    """
    direction, total = _gradient(answer, label)
    contributions = np.zeros(len(words))
    if left_out is not None:
        contributions += (answer - left_out) @ direction
    if readers is not None:
        factor = readers.blend.linear_alone if left_out is None else readers.blend.linear
        contributions += factor * linear_contributions(readers.linear, ids, words, direction)
        if left_out is not None:  # it has the linear reader in it, which was counted by its weights
            contributions -= readers.blend.linear * _linear_losses(readers.linear, ids, words) @ direction
    return Explanation(contributions, total - float(contributions.sum()), total)


def explain_texts(model: Model, texts: Sequence[str], max_words: int = MAX_WORDS) -> list[Explained]:
    """Explain the most probable label of each text. In process, one text after another; the server has its batcher."""
    explained = []
    for text, tokens in zip(texts, model.encoder.tokens(texts), strict=True):
        words, early = words_of(text, tokens, max_words), model.early(tokens.ids)
        answer = model.run([tokens.ids])[0] if early is None else early
        label, left_out = int(answer.argmax()), None
        if early is None:
            left_out = model.run([word.left_out(tokens.ids) for word in words]) if words else answer[None][:0]
        explanation = explain(model.readers, tokens.ids, words, label, answer, left_out)
        explained.append(Explained(text, label, words, explanation))
    return explained


class Explained(NamedTuple):
    """A text, the index of its label, its words and the contribution of each."""

    text: str
    label: int
    words: Sequence[Word]
    explanation: Explanation


def linear_contributions(reader: LinearReader, ids: Ids, words: Sequence[Word], direction: Numbers) -> Numbers:
    """What each word adds to the product of the reader's logits with `direction`, (labels,): (words,).

    With the product of the bias, and what stands in no word, they sum to it. Of a pair's weight each of its tokens has
    half, but that a special token leaves its half to the other. Occurrences of one n-gram share its weight equally.
    """
    at = _places(len(ids), reader.vocabulary.max_ngram)
    keys = ngram_keys(ids, reader.vocabulary.max_ngram)
    rows = reader.vocabulary.keys.searchsorted(keys)
    known = reader.vocabulary.keys.take(rows, mode="clip") == keys
    rows, at = rows[known], at[known]
    features = reader.vocabulary.features(ids)
    unique, inverse, counts = np.unique(rows, return_inverse=True, return_counts=True)
    values = np.bincount(unique.searchsorted(features.rows), features.values, minlength=len(unique))
    shares = (values / np.maximum(counts, 1) * (reader.weights.take(unique, axis=0) @ direction))[inverse]
    of_token = np.bincount(at.ravel(), (shares[:, None] / 2).repeat(2, axis=1).ravel(), minlength=len(ids))
    return np.array([of_token[word.first : word.last].sum() for word in words])


def _places(tokens: int, max_ngram: int) -> NDArray[np.intp]:
    """(n-grams, 2): the positions of the tokens that share each n-gram of ngram_keys; one token is named twice."""
    single = np.arange(1, tokens - 1)
    if max_ngram == 1:
        return np.stack((single, single), axis=1)
    pairs = np.stack((np.arange(tokens - 1), np.arange(1, tokens)), axis=1)
    if tokens > 2:
        pairs[0, 0], pairs[-1, 1] = 1, tokens - 2
    return np.concatenate((np.stack((single, single), axis=1), pairs))


def _linear_losses(reader: LinearReader, ids: Ids, words: Sequence[Word]) -> Numbers:
    """What the linear reader's logits lose when it reads the text without each of the words: (words, labels)."""
    whole = reader.read(ids).logits
    losses = np.zeros((len(words), len(whole)))
    for i, word in enumerate(words):
        losses[i] = whole - reader.read(word.left_out(ids)).logits
    return losses


def _gradient(answer: Logits, label: int) -> tuple[Numbers, float]:
    """The gradient of the label's log-odds by the logits, (labels,), and the log-odds.

    It is 1 for the label, and for each of its rivals the negative of its probability among them: so a word that tells
    the label from its nearest rival counts, and one that tells it from labels that are out of the question does not.
    """
    logits = answer.astype(np.float64)
    rivals = np.delete(logits, label)
    if not rivals.size:
        return np.zeros(1), 0.0
    highest = rivals.max()
    exponents = np.exp(rivals - highest)
    total = float(logits[label] - highest - np.log(exponents.sum()))
    return np.insert(-exponents / exponents.sum(), label, 1.0), total
