"""Keep the few outlier channels of a matrix product out of its int8 range.

In the encoders served here, one or two channels after GELU reach 15 to 25 where the rest stay under 6, and one int8
scale for all of them leaves the rest too coarse: on the seed sentiment holdout it moved 9.7 % of the labels. So
x W becomes x' W' + x[outliers] W[outliers]: the rows of the outliers are zero in W', which is quantized over the
range of the other channels alone, and the small second product stays in fp32. It is the decomposition of LLM.int8()
(Dettmers et al., 2022, https://arxiv.org/abs/2208.07339) with channels fixed at calibration, so that an
answer depends only on its text. Measurements: docs/decisions/0002-static-int8.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.tokenizer import pad

CHANNELS = 16

Range = dict[str, Any]


def split_outliers(model: onnx.ModelProto, rows: Sequence[Sequence[int]]) -> tuple[dict[str, list[Range]], list[str]]:
    """Split the outlier channels off, in place; `rows` are token ids of calibration texts.

    Returns, for the quantizer, the range of each split activation without its outliers, and the names of the products
    that stay in fp32.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    after_gelu = {name for node in graph.node if node.op_type == "Gelu" for name in node.output}
    gated = [node for node in graph.node if node.op_type == "Mul" and not after_gelu.isdisjoint(node.input)]
    after_gelu |= {name for node in gated for name in node.output}  # GELU(a) * b, as in ModernBERT
    products = [
        node
        for node in graph.node
        if node.op_type == "MatMul" and node.input[0] in after_gelu and node.input[1] in weights
    ]
    if not products:
        return {}, []
    lows, highs = _channel_ranges(model, sorted({node.input[0] for node in products}), rows)
    # By weight, since layers may share one (ALBERT's do), and its rows of outliers are set to zero for all of them.
    by_weight: dict[str, list[onnx.NodeProto]] = {}
    for node in products:
        by_weight.setdefault(node.input[1], []).append(node)
    ranges: dict[str, list[Range]] = {}
    for name, sharing in by_weight.items():
        largest = [np.maximum(np.abs(lows[node.input[0]]), np.abs(highs[node.input[0]])) for node in sharing]
        by_size = np.argsort(-np.max(largest, axis=0))
        outliers, others = np.sort(by_size[:CHANNELS]), by_size[CHANNELS:]
        for node in sharing:
            ranges[node.input[0]] = _range(lows[node.input[0]][others], highs[node.input[0]][others])
        _split(graph, sharing, weights[name], outliers)
    return ranges, [f"{node.name}_outliers" for node in products]


def _range(low: NDArray[np.float32], high: NDArray[np.float32]) -> list[Range]:
    zero = np.float32(0.0)
    return [{"rmin": min([*low, zero]), "rmax": max([*high, zero])}]


def _split(
    graph: onnx.GraphProto, sharing: Sequence[onnx.NodeProto], weight: onnx.TensorProto, outliers: NDArray[np.int64]
) -> None:
    """Add the products of the outlier channels to the outputs of `sharing`, whose `weight` loses these rows."""
    matrix = numpy_helper.to_array(weight).copy()
    channels, kept = f"{sharing[0].name}_channels", f"{sharing[0].name}_outlier_weight"
    graph.initializer.append(numpy_helper.from_array(outliers, channels))
    graph.initializer.append(numpy_helper.from_array(matrix[outliers], kept))
    matrix[outliers] = 0.0
    weight.CopyFrom(numpy_helper.from_array(matrix, weight.name))
    for node in sharing:
        _add_outliers(graph, node, channels, kept)


def _add_outliers(graph: onnx.GraphProto, node: onnx.NodeProto, channels: str, kept: str) -> None:
    """Add the product of the outlier channels after the bias, which is fused later (simplify.py), if there is one."""
    name = node.name
    readers = [other for other in graph.node if node.output[0] in other.input]
    last = readers[0] if len(readers) == 1 and readers[0].op_type == "Add" else node
    output = last.output[0]
    last.output[0] = f"{output}_int8"
    added = [
        helper.make_node("Gather", [node.input[0], channels], [f"{name}_picked"], f"{name}_gather", axis=-1),
        helper.make_node("MatMul", [f"{name}_picked", kept], [f"{name}_fp32"], f"{name}_outliers"),
        helper.make_node("Add", [last.output[0], f"{name}_fp32"], [output], f"{name}_add"),
    ]
    at = next(i for i, other in enumerate(graph.node) if other.name == last.name) + 1
    for offset, new in enumerate(added):
        graph.node.insert(at + offset, new)


def _channel_ranges(
    model: onnx.ModelProto, names: Sequence[str], rows: Sequence[Sequence[int]]
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """The minimum and maximum, (channels,), of the named activations over `rows`, by name."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    for name in names:
        probe.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    lows: dict[str, NDArray[np.float32]] = {}
    highs: dict[str, NDArray[np.float32]] = {}
    for row in rows:
        ids, mask = pad([row])
        for name, value in zip(
            names, session.run(list(names), {"input_ids": ids, "attention_mask": mask}), strict=True
        ):
            channels = value.reshape(-1, value.shape[-1])
            lows[name] = np.minimum(lows.get(name, np.inf), channels.min(0))
            highs[name] = np.maximum(highs.get(name, -np.inf), channels.max(0))
    return lows, highs
