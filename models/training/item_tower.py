"""The text tower of a recommendation model: item vectors in which items that the same user chose are close.

The encoder is frozen, and a projection of its pooled output is learned from interactions. On a catalogue of a few
hundred items this generalizes: fine-tuning the encoder itself on the same choices took a hundred times as long and
ranked worse than no training at all (docs/decisions/0006-recommendation-tower.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.checkpoint import text_encoder
from export.pooling import pooled
from models.training.config import Recipe
from models.training.finetune import prepare, save
from models.training.progress import ReportStage

DIMENSIONS = 128
_STEPS = 100
_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 0.1
_DROPOUT = 0.2


def fit_tower(
    texts: Sequence[str],
    shown: NDArray[np.float32],
    chosen: NDArray[np.float32],
    recipe: Recipe,
    out: Path,
    report: ReportStage,
) -> list[tuple[int, float]]:
    """Learn the projection and write the checkpoint to `out`. The losses, as (step, loss).

    `texts` are the items'; `shown` and `chosen` are (users, items), 1 where the user was shown or chose the item. An
    item that was chosen but not shown is history of the user and has no loss of its own.
    The loss is the log loss of every impression, predicted from the mean cosine of the item with the user's other
    choices and the item's popularity. Raises CheckpointError for an unknown base.
    """
    model, tokenizer = prepare(recipe, outputs=DIMENSIONS, normalize=True)
    rows = [row.ids for row in text_encoder(tokenizer, recipe.max_length).encode(texts)]
    features = pooled(model.encoder, rows, lambda done, total: report("training", done, total + _STEPS))
    _start_from_principal_axes(model.head, features)
    losses = []
    users, items = torch.from_numpy(chosen), torch.from_numpy(shown)
    others = (users.sum(1, keepdim=True) - users).clamp(min=1)
    popularity = torch.logit(((users * items).sum(0) + 1) / (items.sum(0) + 4)).nan_to_num(0.0, 0.0, 0.0)
    scale, bias = nn.Parameter(torch.tensor(3.0)), nn.Parameter(torch.tensor(0.0))
    optimizer = torch.optim.AdamW(
        [
            {"params": model.head.parameters(), "lr": _LEARNING_RATE, "weight_decay": _WEIGHT_DECAY},
            {"params": [scale, bias], "lr": 0.02, "weight_decay": 0.0},
        ]
    )
    for step in range(1, _STEPS + 1):
        vectors = nn.functional.normalize(model.head(nn.functional.dropout(features, _DROPOUT)), dim=-1)
        cosines = (users @ (vectors @ vectors.T) - users) / others  # without the cosine of the item with itself
        logits = scale * cosines + popularity + bias
        loss = nn.functional.binary_cross_entropy_with_logits(logits, users, weight=items, reduction="sum")
        loss = loss / items.sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 10 == 0:
            losses.append((step, loss.item()))
        report("training", len(rows) + step, len(rows) + _STEPS)
    save(model, tokenizer, [], out)
    return losses


def _start_from_principal_axes(head: nn.Linear, features: Tensor) -> None:
    """Initialize the projection so that it preserves the encoder's similarities, instead of at random.

    The mean is not subtracted: without it the vectors are small differences, which int8 rounding would turn.
    """
    axes = torch.linalg.svd(features, full_matrices=False).Vh[: head.out_features]
    with torch.no_grad():
        head.weight.zero_()
        head.weight[: len(axes)] = axes
        head.bias.zero_()
