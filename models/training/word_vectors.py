"""Text vectors without an encoder: TF-IDF of tokens, projected to few dimensions (latent semantic analysis).

They have the form of a linear reader, with dimensions where that has labels. Deerwester et al., 1990.
"""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import TruncatedSVD

from export.linear import LinearReader
from models.training.linear_reader import LinearSettings, Rows, ngram_features

DIMENSIONS = 64
SETTINGS = LinearSettings(max_ngram=1)
"""Pairs of neighbours added nothing on the seed shop, at four times the size."""


def fit_word_vectors(rows: Rows) -> LinearReader:
    """A reader whose readings, scaled to unit length, are text vectors. `rows` are the items' token ids."""
    vocabulary, matrix = ngram_features(rows, DIMENSIONS, SETTINGS)
    dimensions = max(1, min(DIMENSIONS, *(side - 1 for side in matrix.shape)))
    axes = TruncatedSVD(dimensions, random_state=0).fit(matrix).components_
    return LinearReader(vocabulary, axes.T.astype(np.float16), np.zeros(dimensions, np.float32))
