"""An embedding for tests that need one and no encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from models.curation.types import Embed


def latent(texts: Sequence[str]) -> Embed:
    """Latent semantic analysis fitted on `texts`: a real embedding that costs nothing."""
    steps = (TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), TruncatedSVD(128, random_state=0), Normalizer())
    fitted = make_pipeline(*steps).fit(list(texts))
    return lambda some: np.asarray(fitted.transform(list(some)), np.float32)
