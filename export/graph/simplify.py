"""What onnxruntime's own optimizations leave standing in a graph of ours: passes over memory that compute nothing.

Rules for onnxscript's rewriter. Measured in docs/decisions/0019-no-padding.md.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnxscript import ir
from onnxscript.rewriter import pattern, rewrite


def without_reshapes_in_a_row(model: onnx.ModelProto) -> onnx.ModelProto:
    """Of two reshapes in a row the last alone. onnxscript's own rule for it gives shapes names that others have."""

    def two(op: Any, x: Any, first: Any, last: Any) -> Any:
        return op.Reshape(op.Reshape(x, first), last)

    def one(op: Any, x: Any, last: Any, **_: Any) -> Any:
        return op.Reshape(x, last)

    def is_whole(context: Any, last: ir.Value, **_: Any) -> bool:
        return last.const_value is not None and 0 not in last.const_value.numpy()  # a 0 is a side of what it reshapes

    rewritten: onnx.ModelProto = rewrite(model, [pattern.RewriteRule(two, one, is_whole)])
    return rewritten


def with_bias_in_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """Quantized products with their bias in one MatMulIntegerToFloat: onnxruntime fuses all but the bias.

    Only those whose weights are rounded symmetrically, as the quantizer does it.
    """

    def apart(op: Any, x: Any, w: Any, x_scale: Any, w_scale: Any, x_zero: Any, w_zero: Any, bias: Any) -> Any:
        product = op.MatMul(op.DequantizeLinear(x, x_scale, x_zero), op.DequantizeLinear(w, w_scale, w_zero))
        return op.Add(product, bias)

    def fused(op: Any, x: Any, w: Any, x_scale: Any, w_scale: Any, x_zero: Any, bias: Any, **_: Any) -> Any:
        # A zero point of zero is the operator's default, for which it need not multiply.
        return op.MatMulIntegerToFloat(x, w, x_scale, w_scale, x_zero, None, bias, _domain="com.microsoft")

    def fits(context: Any, w_zero: ir.Value, bias: ir.Value, **_: Any) -> bool:
        symmetric = w_zero.const_value is not None and not w_zero.const_value.numpy().any()
        return symmetric and bias.const_value is not None and len(bias.const_value.shape) == 1

    # What rounds the input stays for the other products that read it.
    rewritten: onnx.ModelProto = rewrite(model, [pattern.RewriteRule(apart, fused, fits, remove_nodes=False)])
    return rewritten
