"""Padding of token ids for PyTorch, and mean pooling of encoder outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from export.tokenizer import pad

_BATCH = 32


def pad_rows(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids to padded `input_ids` and `attention_mask`, both (rows, longest)."""
    ids, mask = pad(rows)
    return torch.from_numpy(ids), torch.from_numpy(mask)


def mean_pooled(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean over each text's tokens: `hidden` (batch, length, hidden), mask (batch, length), to (batch, hidden)."""
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * mask).sum(1) / mask.sum(1).clamp(min=1.0)


@torch.no_grad()
def pooled(
    encoder: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Mean-pooled encoder output of every row, (rows, hidden), computed shortest first.

    `progress` is called with (rows done, rows in all). The encoder is left in evaluation mode.
    """
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found = torch.empty(len(rows), encoder.config.hidden_size)
    encoder.eval()
    for at in range(0, len(order), _BATCH):
        part = order[at : at + _BATCH]
        ids, mask = pad_rows([rows[i] for i in part])
        found[part] = mean_pooled(encoder(input_ids=ids, attention_mask=mask).last_hidden_state, mask)
        progress(at + len(part), len(order))
    return found
