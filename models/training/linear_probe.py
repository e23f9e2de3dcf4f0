"""Linear probe: fit the head's rows of new labels to a frozen encoder.

Fine-tuning alone would learn these rows from zero, and meanwhile change the encoder and with it the old answers. For a
frozen encoder they are the solution of a small convex problem, found in seconds. So they are fitted before fine-tuning
(Kumar et al., 2022, https://arxiv.org/abs/2202.10054) and again after it, to the fine-tuned encoder (Kang et al., 2020,
https://arxiv.org/abs/1910.09217). docs/decisions/0015-continued-training.md has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_PENALTY = 1e-4  # L2, on the new rows: a row must not overfit ten texts
_MAX_STEPS = 100
_BATCH = 8192  # texts


def probe(
    head: nn.Linear, features: Tensor, truth: Tensor, new_rows: Sequence[int], shift: Tensor, smoothing: float
) -> None:
    """Fit the rows `new_rows` of `head` to `features`, (texts, hidden), and their labels `truth`, (texts,), in place.

    The other rows stay. `shift`, (labels,), is added to the logits as in fine-tuning; `smoothing` is label smoothing.
    """
    weight = torch.zeros(len(new_rows), features.shape[1], requires_grad=True)
    bias = torch.zeros(len(new_rows), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_MAX_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = _PENALTY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        total = value.detach()
        for at in range(0, len(features), _BATCH):  # the logits of all texts and labels would take gigabytes
            part, true = features[at : at + _BATCH], truth[at : at + _BATCH]
            with torch.no_grad():
                logits = head(part) + shift
            found = logits.index_copy(1, rows, part @ weight.T + bias + shift[rows])
            value = nn.functional.cross_entropy(found, true, label_smoothing=smoothing, reduction="sum") / len(features)
            value.backward()  # type: ignore[no-untyped-call]
            total += value.detach()
        return total

    rows = torch.tensor(new_rows)
    optimizer.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        head.weight[rows] = weight
        head.bias[rows] = bias
