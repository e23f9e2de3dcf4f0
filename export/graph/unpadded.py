"""The encoder without padding: it runs over one row of all tokens of a batch, whatever the lengths of its texts.

Texts of a batch are padded to the longest, and a layer works on the padding as on any token. Here the padding is left
out before the first layer. Attention alone must tell one text from the other: it gets them laid out as they came, and
what it gives for the padding is left out again. This is the unpadding of Effective Transformer (ByteDance, 2020,
https://github.com/bytedance/effective_transformer), in operators that onnxruntime has already. Measured in
docs/decisions/0019-no-padding.md and docs/decisions/0023-attention-over-the-row.md.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from export.checkpoint import TextModel

# Encoders that number the positions of a text from 0 and take the numbers as an argument, and whose attention is made
# of three products of the same states: `query`, `key` and `value`.
_KNOWN = ("bert",)
# Added to the scores of padding, whose key is that of its text's last token (Layout.in_row): it gets e^-50 of that
# one's weight, which no sum of float32 sees. Much less would be a denormal number: some processors multiply those by
# microcode, for an eighth of a run (docs/decisions/0019-no-padding.md).
_PADDING_SCORE = -50.0


class Layout(NamedTuple):
    """Where the tokens of a batch are: in its texts, padded to (batch, length), and in one row of all of them.

    Attention cuts the row into heads: of each token those of its query, of its key and of its value, one after another.
    """

    in_texts: Tensor
    """(tokens,): where in the flattened texts each token of the row is"""
    in_row: Tensor
    """(batch, length): where in the row each token of the texts is; for padding, the token before it"""
    queries: Tensor
    """(batch, heads, length): where in the row, cut into heads, the query is; the key is `heads` after it, and so on"""
    answers: Tensor
    """(tokens, heads): where in the flattened (batch, heads, length) the heads of each token are"""
    padding: Tensor
    """(batch, 1, 1, length): what is added to the scores of attention"""

    @classmethod
    def of(cls, mask: Tensor, heads: int) -> Layout:
        """From a mask of (batch, length): 1 for a token, 0 for padding."""
        batch, length = mask.shape
        flat = mask.flatten()
        in_texts = flat.nonzero().squeeze(1)
        in_row = (flat.cumsum(0) - 1).clamp(min=0).reshape(mask.shape)
        head = torch.arange(heads)
        first = torch.arange(batch).unsqueeze(1) * (heads * length) + torch.arange(length)  # of each token's heads
        return cls(
            in_texts,
            in_row,
            in_row.unsqueeze(1) * (3 * heads) + head.unsqueeze(1),
            first.flatten().index_select(0, in_texts).unsqueeze(1) + head * length,
            (1.0 - mask.to(torch.float32))[:, None, None, :] * _PADDING_SCORE,
        )

    def as_texts(self, row: Tensor) -> Tensor:
        """(1, tokens, size) to (batch, length, size)."""
        return embedding(self.in_row, row.flatten(0, 1))

    def as_row(self, texts: Tensor) -> Tensor:
        """(batch, length) to (1, tokens)."""
        return texts.flatten().index_select(0, self.in_texts).unsqueeze(0)

    def attention(self, states: Tensor, scaling: float) -> Tensor:
        """Queries, keys and values, (1, tokens, 3 * heads, size), to (1, tokens, heads, size).

        In plain products: onnxruntime's MultiHeadAttention copies its inputs once more, to put heads before tokens.
        Here the copy that lays them out as texts does that as well.
        """
        size, heads = states.shape[-1], self.answers.shape[1]
        row = states.reshape(-1, size)
        query, key, value = (embedding(self.queries + part * heads, row) for part in range(3))
        scores = torch.onnx.ops.symbolic(
            "com.microsoft::FusedMatMul",
            (query, key),
            {"transB": 1, "alpha": float(scaling)},
            dtype=query.dtype,
            shape=(*query.shape[:3], query.shape[2]),
            version=1,
        )
        answers = torch.softmax(scores + self.padding, -1) @ value
        return embedding(self.answers, answers.reshape(-1, size)).unsqueeze(0)


class Unpadded(nn.Module):
    """`model`, as export/graph/fused.py gives it, over tokens alone. To be traced and never run.

    The three products of an attention become one here, so `model` is of no other use after that.
    """

    def __init__(self, model: TextModel):
        super().__init__()
        self.model = model
        self._heads: int = model.encoder.config.num_attention_heads
        for module in model.encoder.modules():
            if isinstance(getattr(module, "query", None), nn.Linear):
                _join_products(module)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """As TextModel's."""
        layout = Layout.of(attention_mask, self._heads)
        positions = torch.arange(input_ids.shape[1]).expand(input_ids.shape)
        hidden = self.model.encoder(
            input_ids=layout.as_row(input_ids), position_ids=layout.as_row(positions), layout=layout
        ).last_hidden_state
        return self.model.output(layout.as_texts(hidden), attention_mask)


def _join_products(attention: nn.Module) -> None:
    """Let `query` give keys and values too, as further heads; what `key` and `value` give is not asked for."""
    products = [cast(nn.Linear, attention.get_submodule(name)) for name in ("query", "key", "value")]
    joined = nn.Linear(products[0].in_features, sum(product.out_features for product in products))
    with torch.no_grad():
        joined.weight.copy_(torch.cat([product.weight for product in products]))
        joined.bias.copy_(torch.cat([product.bias for product in products]))
    attention.query, attention.key, attention.value = joined, nn.Identity(), nn.Identity()


def can_be_unpadded(model: TextModel) -> bool:
    """Whether `Unpadded` knows how the encoder of `model` takes positions, and of what its attention is made."""
    return model.encoder.config.model_type in _KNOWN
