"""Fused operators of onnxruntime in place of the exporter's subgraphs: attention in one node, a cheaper GELU.

Traced without this, each attention is some thirty nodes (two transposes of the keys, a mask expanded to batch x
length x length, a search for NaN) and onnxruntime's own fusion does not recognize them. Measurements:
docs/decisions/0008-graph.md.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.activations import FastGELUActivation, GELUActivation, NewGELUActivation
from transformers.masking_utils import bidirectional_mask_function

from export.checkpoint import TextModel
from export.graph.unpadded import REPLACED, Layout

# Spellings of the tanh approximation in transformers, which are eight operators in ONNX instead of one.
_TANH_GELUS = (NewGELUActivation, FastGELUActivation)


def with_fused_operators(model: TextModel, *, tanh_gelu: bool) -> TextModel:
    """A copy of `model`, only for tracing, whose attention is com.microsoft's MultiHeadAttention.

    If the encoder gets a Layout, the attention is Layout.attention. An encoder that does not use transformers'
    AttentionInterface keeps its own attention. `tanh_gelu` as in `with_plain_attention`.
    """
    fused = with_plain_attention(model, tanh_gelu=tanh_gelu)
    AttentionInterface.register(REPLACED, _attention)
    AttentionMaskInterface.register(REPLACED, _padding_mask)
    fused.encoder.set_attn_implementation(REPLACED)
    return fused


def with_plain_attention(model: TextModel, *, tanh_gelu: bool) -> TextModel:
    """A copy of `model` whose attention is transformers' plainest.

    `tanh_gelu` replaces the exact GELU by its tanh approximation (Hendrycks & Gimpel, 2016,
    https://arxiv.org/abs/1606.08415), which is within 5e-4 of it.
    """
    plain = copy.deepcopy(model)
    plain.encoder.set_attn_implementation("eager")
    replaced = (*_TANH_GELUS, *((GELUActivation, nn.GELU) if tanh_gelu else ()))
    for module in list(plain.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, replaced):
                setattr(module, name, nn.GELU(approximate="tanh"))
    return plain


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    layout: Layout | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Queries, keys and values of shape (batch, heads, length, size) to (batch, length, heads, size).

    With a `layout`, `query` is one row of all tokens, and contains the keys and values too.
    """
    if layout is not None:
        return layout.attention(query.transpose(1, 2), scaling), None
    batch, heads, length, size = query.shape
    inputs = [tensor.transpose(1, 2).reshape(batch, length, heads * size) for tensor in (query, key, value)]
    output = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        (*inputs, None, None if mask is None else mask.to(torch.int32)),
        {"num_heads": heads, "scale": float(scaling)},
        dtype=query.dtype,
        shape=inputs[0].shape,
        version=1,
    )
    return output.reshape(batch, length, heads, size), None


def _padding_mask(
    *_: Any, attention_mask: Tensor | None = None, mask_function: Any = bidirectional_mask_function, **__: Any
) -> Tensor | None:
    """The tokenizer's mask, (batch, length), unchanged: the operator takes it as it is.

    Raises NotImplementedError when a token must not see all tokens of its text, as in ModernBERT's sliding windows.
    """
    if mask_function is not bidirectional_mask_function:
        raise NotImplementedError("its attention does not see the whole text in every layer")
    return attention_mask
