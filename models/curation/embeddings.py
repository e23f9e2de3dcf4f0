"""Texts to vectors by a base encoder, for curation and drift."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from export.base_model import DEFAULT_BASE
from export.checkpoint import load_base
from models.curation.types import Embed

_BATCH = 64


def base_encoder(base: str = DEFAULT_BASE, max_length: int = 64) -> Embed:
    """Mean pooled, normalized vectors of shape (texts, dimensions).

    Use the base model, not the champion: an encoder that was fine-tuned on a text has seen its label, wrong or not.
    """
    encoder, tokenizer = load_base(base)
    encoder.eval()

    def embed(texts: Sequence[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        out = np.zeros((len(texts), encoder.config.hidden_size), np.float32)
        by_length = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        with torch.inference_mode():
            for start in range(0, len(texts), _BATCH):
                rows = by_length[start : start + _BATCH]
                batch = tokenizer(
                    [texts[at] for at in rows],
                    padding=True,
                    truncation=True,
                    max_length=max_length,
                    return_tensors="pt",
                )
                hidden = encoder(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
                mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
                pooled = (hidden * mask).sum(1) / mask.sum(1)
                out[rows] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
        return out

    return embed
