"""The head's rows of new labels, fitted to an encoder as it is.

Fine-tuning alone would have to find them from zero, and moves the encoder meanwhile and with it the old answers. For a
given encoder they are the solution of a small convex problem, found in seconds. So they are fitted before fine-tuning
(Kumar et al., 2022, https://arxiv.org/abs/2202.10054) and again after it, for the encoder that came of it (Kang et al.,
2020, https://arxiv.org/abs/1910.09217). docs/decisions/0015-continued-training.md has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_PENALTY = 1e-4  # on the squared length of the new rows: ten texts must not find a row that only fits them
_MAX_STEPS = 100


def probe(
    head: nn.Linear, features: Tensor, truth: Tensor, fresh: Sequence[int], shift: Tensor, smoothing: float
) -> None:
    """Fit the rows `fresh` of `head` to `features`, (texts, hidden), whose labels are `truth`; the others stay.

    `shift` is added to the logits, (labels,), as in the training that follows; `smoothing` is of the labels.
    """
    with torch.no_grad():
        logits = head(features) + shift
    weight = torch.zeros(len(fresh), features.shape[1], requires_grad=True)
    bias = torch.zeros(len(fresh), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_MAX_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = logits.index_copy(1, rows, features @ weight.T + bias + shift[rows])
        value = nn.functional.cross_entropy(found, truth, label_smoothing=smoothing) + _PENALTY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    rows = torch.tensor(fresh)
    optimizer.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        head.weight[rows] = weight
        head.bias[rows] = bias
