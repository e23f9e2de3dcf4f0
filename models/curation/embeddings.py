"""Text embeddings by a base encoder, for curation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from export.base_model import DEFAULT_BASE
from export.checkpoint import load_base
from export.pooling import pooled
from models.curation.types import Embed


def base_encoder(base: str = DEFAULT_BASE, max_length: int = 64) -> Embed:
    """A function from texts to mean-pooled, normalized vectors, (texts, dimensions).

    The base model and not the champion, since an encoder that was fine-tuned on a text has learned its label, wrong or
    not.
    """
    encoder, tokenizer = load_base(base)

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        rows = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"] if texts else []
        vectors: NDArray[np.float32] = nn.functional.normalize(pooled(encoder, rows), dim=-1).numpy()
        return vectors

    return embed
