"""Optimization of an exported graph for its target: int8 for CPUs, fp16 for GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from export.graph.equalize import equalize
from export.graph.outliers import split_outliers
from export.graph.products import Range, after_gelu, channel_ranges, inputs, insert_after, matrix, products_of
from export.graph.simplify import without_reshapes_in_a_row

_MICROSOFT = "com.microsoft"


def quantize_static_int8(source: Path, target: Path, calibration: Sequence[Sequence[int]]) -> None:
    """Quantize the graph at `source` to static int8, and write it to `target`.

    Static, since dynamic int8 scales activations by the range of the whole batch, so that an answer depends on the
    other texts of its batch (docs/decisions/0002-static-int8.md). `calibration` are token ids of training texts.

    Only the matrix products of the encoder become int8. The rest (attention scores, softmax, layer norm) costs little
    time and would lose the most accuracy. The head stays in fp32, since its input is a mean whose last bit differs
    between batches: rounded to int8, that bit became a step of 0.002 in the output.
    """
    model = without_reshapes_in_a_row(onnx.load(str(source)))
    graph = model.graph
    # With the exporter's shapes, onnxruntime places the activations beforehand, and softmax takes 1.5 times as long.
    del graph.value_info[:]
    products, gelu = products_of(graph), after_gelu(graph)
    ranges = channel_ranges(model, inputs(products), calibration)
    equalize(graph, [node for node in products if node.input[0] not in gelu], ranges)
    split_outliers(graph, [node for node in products if node.input[0] in gelu], ranges)
    for name in inputs(products):
        _quantize_input(graph, name, ranges[name])
    for node in products:
        _quantize_product(graph, node)
    _remove_unread(graph)
    if _MICROSOFT not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(_MICROSOFT, 1))
    onnx.save(model, str(target))


def _quantize_input(graph: onnx.GraphProto, name: str, found: Range) -> None:
    """Add the uint8 copy of an activation that the products read. All else, such as a residual, reads fp32."""
    low, high = min(float(found.low.min()), 0.0), max(float(found.high.max()), 0.0)
    scale = np.float32(max((high - low) / 255, float(np.finfo(np.float32).tiny)))
    graph.initializer.append(numpy_helper.from_array(np.array(scale), f"{name}_scale"))
    graph.initializer.append(numpy_helper.from_array(np.array(np.rint(-low / scale), np.uint8), f"{name}_zero"))
    quantized = [name, f"{name}_scale", f"{name}_zero"]
    insert_after(graph, name, [helper.make_node("QuantizeLinear", quantized, [f"{name}_uint8"], f"{name}_quantize")])


def _quantize_product(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """Make a product, and the addition of its bias, onnxruntime's product of uint8 by int8 that gives fp32."""
    name, weight = node.input
    if all(tensor.name != f"{weight}_int8" for tensor in graph.initializer):
        values, scales = _rounded(matrix(graph, weight))
        graph.initializer.append(numpy_helper.from_array(values, f"{weight}_int8"))
        graph.initializer.append(numpy_helper.from_array(scales, f"{weight}_scale"))
    bias = _take_bias(graph, node, matrix(graph, weight).shape[1])
    node.op_type, node.domain = "MatMulIntegerToFloat", _MICROSOFT
    # No zero point of the weight: 0 is the default, and given it would be multiplied all the same.
    del node.input[:]
    node.input.extend([f"{name}_uint8", f"{weight}_int8", f"{name}_scale", f"{weight}_scale", f"{name}_zero", "", bias])


def _take_bias(graph: onnx.GraphProto, node: onnx.NodeProto, channels: int) -> str:
    """Remove the addition of a bias, (channels,), to the product `node`, which gets its output; "" if there is none."""
    readers = [other for other in graph.node if node.output[0] in other.input]
    if len(readers) != 1 or readers[0].op_type != "Add":
        return ""
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    bias = next((name for name in readers[0].input if shapes.get(name) == [channels]), "")
    if bias:
        node.output[0] = readers[0].output[0]
        graph.node.remove(readers[0])
    return bias


def _rounded(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A weight, (channels in, channels out), in int8, and the scale of each output channel."""
    scales = np.maximum(np.abs(weight).max(0) / 127, np.finfo(np.float32).tiny).astype(np.float32)
    return np.rint(weight / scales).astype(np.int8), scales


def _remove_unread(graph: onnx.GraphProto) -> None:
    """Remove the weights that no node reads any more."""
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def to_fp16(source: Path, target: Path) -> None:
    """Convert the graph at `source` to fp16, and write it to `target`; inputs and output keep their types."""
    model = onnx.load(str(source))
    del model.graph.value_info[:]
    onnx.save(convert_float_to_float16(model, keep_io_types=True), str(target))
