"""Fused operators of onnxruntime in place of the exporter's subgraphs: attention in one node, a cheaper GELU.

Traced without this, each attention is some thirty nodes (two transposes of the keys, a mask expanded to batch x
length x length, a search for NaN) and onnxruntime's own fusion does not recognize them. Measurements:
docs/decisions/0008-graph.md.
"""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.activations import GELUActivation

from export.checkpoint import TextModel
from export.graph.unpadded import Layout

_NAME = "onnxruntime"


def with_fused_operators(model: TextModel, *, tanh_gelu: bool) -> TextModel:
    """A copy of `model`, only for tracing, whose attention is com.microsoft's MultiHeadAttention.

    If the encoder gets a Layout, the attention is Layout.attention. An encoder that does not use transformers'
    AttentionInterface keeps its own attention. `tanh_gelu` replaces the exact GELU by its tanh approximation (Hendrycks
    & Gimpel, 2016, https://arxiv.org/abs/1606.08415), which is within 5e-4 of it.
    """
    fused = copy.deepcopy(model)
    AttentionInterface.register(_NAME, _attention)
    AttentionMaskInterface.register(_NAME, _padding_mask)
    with contextlib.suppress(ValueError):
        fused.encoder.set_attn_implementation(_NAME)
    if tanh_gelu:
        for module in list(fused.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, GELUActivation) or (isinstance(child, nn.GELU) and child.approximate == "none"):
                    setattr(module, name, nn.GELU(approximate="tanh"))
    return fused


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


def _padding_mask(*_: Any, attention_mask: Tensor | None = None, **__: Any) -> Tensor | None:
    """The tokenizer's mask, (batch, length), unchanged: the operator takes it as it is."""
    return attention_mask
