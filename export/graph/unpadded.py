"""The unpadded encoder: it runs on one row with all tokens of a batch, without padding.

Texts of a batch are padded to the longest, and each layer computes padding like any other token. Here the padding is
removed before the first layer. Only attention must separate the texts: its inputs are laid out as padded texts, and its
outputs for padding are removed again. This is the unpadding of Effective Transformer (ByteDance, 2020,
https://github.com/bytedance/effective_transformer), with existing onnxruntime operators. Measurements:
docs/decisions/0019-no-padding.md and docs/decisions/0023-attention-over-the-row.md.
"""

from __future__ import annotations

from inspect import signature
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from export.checkpoint import TextModel

REPLACED = "onnxruntime"
"""the name in transformers of the attention of export/graph/fused.py"""
# The names that families give to the products of their attention.
_PRODUCTS = (("query", "key", "value"), ("q_lin", "k_lin", "v_lin"))
# Added to the attention scores of padding, whose key is that of its text's last token (Layout.in_row): its weight is
# e^-50 of that token's, which is lost in a float32 sum. A much lower score would give denormal numbers, which some
# processors multiply in microcode, at an eighth of a run (docs/decisions/0019-no-padding.md).
_PADDING_SCORE = -50.0


class Layout(NamedTuple):
    """Index maps between the padded texts of a batch, (batch, length), and one row with all their tokens.

    Attention splits the row into heads: for each token, those of its query, then of its key, then of its value.
    """

    in_texts: Tensor
    """(tokens,): the index in the flattened texts of each token of the row"""
    in_row: Tensor
    """(batch, length): the index in the row of each token of the texts; for padding, of the token before it"""
    queries: Tensor
    """(batch, heads, length): the index of the query in the row split into heads; the key is `heads` after it, then the
    value"""
    answers: Tensor
    """(tokens, heads): the index in the flattened (batch, heads, length) of each token's heads"""
    padding: Tensor
    """(batch, 1, 1, length): the bias added to attention scores"""

    @classmethod
    def of(cls, mask: Tensor, heads: int) -> Layout:
        """From a mask of (batch, length): 1 for a token, 0 for padding."""
        batch, length = mask.shape
        flat = mask.flatten()
        in_texts = flat.nonzero().squeeze(1)
        in_row = (flat.cumsum(0) - 1).clamp(min=0).reshape(mask.shape)
        head = torch.arange(heads)
        first = torch.arange(batch).unsqueeze(1) * (heads * length) + torch.arange(
            length
        )  # index of each token's first head
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

        With plain products, since onnxruntime's MultiHeadAttention copies its inputs once more to transpose heads and
        tokens. Here the gather that pads the texts does that too.
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
    """`model`, from export/graph/fused.py, without padding. Only for tracing.

    Joins the three products of each attention into one in place: `model` must not be used otherwise afterwards.
    """

    def __init__(self, model: TextModel):
        super().__init__()
        self.model = model
        self._heads: int = model.encoder.config.num_attention_heads
        for module in model.encoder.modules():
            if (names := _products(module)) is not None:
                _join_products(module, names)
        table = next((m for n, m in model.encoder.named_modules() if n.endswith("position_embeddings")), None)
        self._no_position: int | None = getattr(table, "padding_idx", None)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """As TextModel.forward."""
        layout = Layout.of(attention_mask, self._heads)
        hidden = self.model.encoder(
            input_ids=layout.as_row(input_ids), position_ids=layout.as_row(self._positions(input_ids)), layout=layout
        ).last_hidden_state
        return self.model.output(layout.as_texts(hidden), attention_mask)

    def _positions(self, input_ids: Tensor) -> Tensor:
        """The position of each token, (batch, length): from 0 or, in RoBERTa's relatives, after the padding token's."""
        if self._no_position is None:
            return torch.arange(input_ids.shape[1]).expand(input_ids.shape)
        counted = input_ids.ne(self._no_position).to(torch.int64)  # a text may contain the padding token
        return counted.cumsum(1) * counted + self._no_position


def _products(module: nn.Module) -> tuple[str, str, str] | None:
    """The names of the products of a self-attention, if `module` is one that `Unpadded` can join."""
    for names in _PRODUCTS:
        found = [getattr(module, name, None) for name in names]
        if all(isinstance(product, nn.Linear) for product in found):
            sizes = {(product.in_features, product.out_features, product.bias is None) for product in found}  # type: ignore[union-attr]
            return names if len(sizes) == 1 else None
    return None


def _join_products(attention: nn.Module, names: tuple[str, str, str]) -> None:
    """Make the first product compute keys and values too, as further heads; the other two outputs are unused."""
    products = [cast(nn.Linear, attention.get_submodule(name)) for name in names]
    bias = products[0].bias is not None
    joined = nn.Linear(products[0].in_features, sum(product.out_features for product in products), bias=bias)
    with torch.no_grad():
        joined.weight.copy_(torch.cat([product.weight for product in products]))
        if bias:
            joined.bias.copy_(torch.cat([product.bias for product in products]))
    for name, module in zip(names, (joined, nn.Identity(), nn.Identity()), strict=True):
        setattr(attention, name, module)


def why_padded(model: TextModel) -> str | None:
    """Why `Unpadded` cannot take `model`, from export/graph/fused.py; None if it may.

    What this does not see, comparing the traced graph with the model does (export/graph/trace.py).
    """
    encoder = model.encoder
    inputs = signature(encoder.forward).parameters
    if "position_ids" not in inputs:
        return "its encoder does not take the positions of tokens"
    if encoder.config._attn_implementation != REPLACED:
        return "its attention is code of its own"
    if not any(_products(module) for module in encoder.modules()):
        return "its attention has not three products of the same states, for queries, keys and values"
    return None
