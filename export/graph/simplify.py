"""A simplification that onnxruntime's own optimizer does not make: it removes passes over memory.

A rule for onnxscript's rewriter. Measurements: docs/decisions/0019-no-padding.md.
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
