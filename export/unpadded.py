"""The encoder without padding: it runs over one row of all tokens of a batch, whatever the lengths of its texts.

Texts of a batch are padded to the longest, and a layer works on the padding as on any token. Here the padding is left
out before the first layer. Attention alone must tell one text from the other: it gets them laid out as they came, and
what it gives for the padding is left out again. This is the unpadding of Effective Transformer (ByteDance, 2020,
https://github.com/bytedance/effective_transformer), in operators that every provider has. Measured in
docs/decisions/0019-no-padding.md.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from export.checkpoint import TextModel

# Encoders that number the positions of a text from 0 and take the numbers as an argument.
_NUMBERED_FROM_ZERO = ("bert",)


class Layout(NamedTuple):
    """Where the tokens of a batch are: in its texts, padded to (batch, length), and in one row of all of them."""

    mask: Tensor
    """(batch, length): 1 for a token, 0 for padding"""
    in_texts: Tensor
    """(tokens,): where in the flattened texts each token of the row is"""
    in_row: Tensor
    """(batch, length): where in the row each token of the texts is; for padding, the token before it"""

    @classmethod
    def of(cls, mask: Tensor) -> Layout:
        flat = mask.flatten()
        in_row = (flat.cumsum(0) - 1).clamp(min=0).reshape(mask.shape)
        return cls(mask, flat.nonzero().squeeze(1), in_row)

    def as_texts(self, row: Tensor) -> Tensor:
        """(1, tokens, size) to (batch, length, size)."""
        return embedding(self.in_row, row.flatten(0, 1))

    def as_row(self, texts: Tensor) -> Tensor:
        """(batch, length, size) to (1, tokens, size); and (batch, length) to (1, tokens)."""
        row = texts.flatten(0, 1).index_select(0, self.in_texts)
        return row.reshape(1, *row.shape)


class Unpadded(nn.Module):
    """`model`, whose attention is that of export/fused.py, over tokens alone. To be traced and never run."""

    def __init__(self, model: TextModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """As TextModel's."""
        layout = Layout.of(attention_mask)
        positions = torch.arange(input_ids.shape[1]).expand(input_ids.shape)
        hidden = self.model.encoder(
            input_ids=layout.as_row(input_ids), position_ids=layout.as_row(positions), layout=layout
        ).last_hidden_state
        return self.model.output(layout.as_texts(hidden), attention_mask)


def knows_its_positions(model: TextModel) -> bool:
    """Whether `Unpadded` can tell its encoder where in its text each token is."""
    return model.encoder.config.model_type in _NUMBERED_FROM_ZERO
