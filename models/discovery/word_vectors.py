"""Texts as TF-IDF vectors of their words and pairs of neighbouring words, for the server's processes.

They need no model, and a thousand texts take milliseconds. Two ways to say the same thing that share no word are not
alike here; where that matters, vectors come from a sentence encoder.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Union

import numpy as np
from numpy.typing import NDArray

from models.text import words

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_MAX_WORDS = 64  # of a text; more than a request says, and a bound for pasted pages

_ROWS_AT_ONCE = 100  # scipy holds the interpreter's lock for a whole product, and the event loop waits for it
# Thai, Lao, Burmese, Khmer, Kana and Chinese characters.
_WITHOUT_SPACES = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
Vectors = Union["csr_matrix", NDArray[np.float32]]


def word_vectors(texts: Sequence[str]) -> csr_matrix:
    """(texts, terms) with rows of unit length, or 0 for a text without words. Terms are weighted among these texts."""
    from scipy.sparse import csr_matrix  # megabytes, for a process that may never be asked

    columns: dict[str, int] = {}
    starts, indices, counts = [0], list[int](), list[int]()
    for text in texts:
        for term, count in Counter(_terms(text)).items():
            indices.append(columns.setdefault(term, len(columns)))
            counts.append(count)
        starts.append(len(indices))
    shape = (len(texts), max(len(columns), 1))
    matrix = csr_matrix((1 + np.log(np.asarray(counts, np.float32)), indices, starts), shape=shape, dtype=np.float32)
    frequency = np.bincount(matrix.indices, minlength=shape[1])
    matrix.data *= (np.log((1 + len(texts)) / (1 + frequency)) + 1).astype(np.float32)[matrix.indices]
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
    matrix.data /= np.repeat(np.maximum(lengths, 1e-9), np.diff(matrix.indptr)).astype(np.float32)
    return matrix


def similarities(vectors: Vectors, others: Vectors) -> NDArray[np.float32]:
    """The cosines of rows of unit length, (rows, other rows)."""
    if isinstance(vectors, np.ndarray) or isinstance(others, np.ndarray):
        return np.asarray(vectors @ others.T, np.float32)
    turned, found = others.T.tocsr(), np.empty((vectors.shape[0], others.shape[0]), np.float32)
    for at in range(0, len(found), _ROWS_AT_ONCE):
        found[at : at + _ROWS_AT_ONCE] = (vectors[at : at + _ROWS_AT_ONCE] @ turned).toarray()
    return found


def _terms(text: str) -> list[str]:
    found = [word for token in words(text)[:_MAX_WORDS] for word in _split(token)][:_MAX_WORDS]
    return [*found, *(f"{one} {other}" for one, other in pairwise(found))]


def _split(token: str) -> Sequence[str]:
    """The characters of a token of a script without spaces, whose tokens are whole sentences; else the token."""
    return token if _WITHOUT_SPACES.search(token) else (token,)
