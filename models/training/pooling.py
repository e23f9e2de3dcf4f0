"""Token ids in rows of unequal length, as PyTorch takes them, and what an encoder makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from export.checkpoint import mean_pooled

_BATCH = 32


def pad_rows(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids to padded `input_ids` and `attention_mask`, both (rows, longest)."""
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask


@torch.no_grad()
def pooled(encoder: nn.Module, rows: Sequence[Sequence[int]], progress: Callable[[int, int], None]) -> Tensor:
    """Mean-pooled encoder output of every row, (rows, hidden), computed shortest first.

    `progress` is called with (rows done, rows in all). The encoder is left in evaluation mode.
    """
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    parts = []
    encoder.eval()
    for at in range(0, len(order), _BATCH):
        ids, mask = pad_rows([rows[i] for i in order[at : at + _BATCH]])
        hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        parts.append(mean_pooled(hidden, mask))
        progress(min(at + _BATCH, len(order)), len(order))
    found = torch.empty(len(rows), parts[0].shape[1])
    found[order] = torch.cat(parts)
    return found
