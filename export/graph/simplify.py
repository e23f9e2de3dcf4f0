"""Simplifications that onnxruntime's own optimizer does not make: they remove passes over memory.

Rules for onnxscript's rewriter. Measurements: docs/decisions/0019-no-padding.md.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnxscript import ir
from onnxscript.rewriter import pattern, rewrite


def without_reshapes_in_a_row(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace two consecutive reshapes by the last. onnxscript's own rule for it creates duplicate names."""

    def two(op: Any, x: Any, first: Any, last: Any) -> Any:
        return op.Reshape(op.Reshape(x, first), last)

    def one(op: Any, x: Any, last: Any, **_: Any) -> Any:
        return op.Reshape(x, last)

    def is_whole(context: Any, last: ir.Value, **_: Any) -> bool:
        return last.const_value is not None and 0 not in last.const_value.numpy()  # a 0 copies a dimension of the input

    rewritten: onnx.ModelProto = rewrite(model, [pattern.RewriteRule(two, one, is_whole)])
    return rewritten


def with_bias_in_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fuse quantized products with their bias into one MatMulIntegerToFloat; onnxruntime fuses all but the bias.

    Only products with symmetrically quantized weights, as ours are.
    """

    def apart(op: Any, x: Any, w: Any, x_scale: Any, w_scale: Any, x_zero: Any, w_zero: Any, bias: Any) -> Any:
        product = op.MatMul(op.DequantizeLinear(x, x_scale, x_zero), op.DequantizeLinear(w, w_scale, w_zero))
        return op.Add(product, bias)

    def fused(op: Any, x: Any, w: Any, x_scale: Any, w_scale: Any, x_zero: Any, bias: Any, **_: Any) -> Any:
        # A zero point of 0 is the operator's default, and saves a multiplication.
        return op.MatMulIntegerToFloat(x, w, x_scale, w_scale, x_zero, None, bias, _domain="com.microsoft")

    def fits(context: Any, w_zero: ir.Value, bias: ir.Value, **_: Any) -> bool:
        symmetric = w_zero.const_value is not None and not w_zero.const_value.numpy().any()
        return symmetric and bias.const_value is not None and len(bias.const_value.shape) == 1

    # The node that quantizes the input stays for the other products that read it.
    rewritten: onnx.ModelProto = rewrite(model, [pattern.RewriteRule(apart, fused, fits, remove_nodes=False)])
    return rewritten
