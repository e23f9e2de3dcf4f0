"""Text embeddings by a base encoder, for curation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from export.base_model import DEFAULT_BASE
from export.checkpoint import load_base, text_encoder
from export.pooling import pooled
from models.curation.types import Embed


def base_encoder(base: str = DEFAULT_BASE, max_length: int = 64) -> Embed:
    """A function from texts to mean-pooled, normalized vectors, (texts, dimensions).

    The base model and not the champion, since an encoder that was fine-tuned on a text has learned its label, wrong or
    not.
    """
    encoder, tokenizer = load_base(base)
    tokens = text_encoder(tokenizer, max_length)

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [row.ids for row in tokens.encode(texts)]
        vectors: NDArray[np.float32] = nn.functional.normalize(pooled(encoder, rows), dim=-1).numpy()
        return vectors

    return embed
