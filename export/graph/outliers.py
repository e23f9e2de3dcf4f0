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
    products = [
        node
        for node in graph.node
        if node.op_type == "MatMul" and node.input[0] in after_gelu and node.input[1] in weights
    ]
    lows, highs = _channel_ranges(model, [node.input[0] for node in products], rows)
    ranges: dict[str, list[Range]] = {}
    for node in products:
        x, low, high = node.input[0], lows[node.input[0]], highs[node.input[0]]
        by_size = np.argsort(-np.maximum(np.abs(low), np.abs(high)))
        outliers, others = np.sort(by_size[:CHANNELS]), by_size[CHANNELS:]
        zero = np.float32(0.0)
        ranges[x] = [{"rmin": min(low[others].min(), zero), "rmax": max(high[others].max(), zero)}]
        _split(graph, node, weights[node.input[1]], outliers)
    return ranges, [f"{node.name}_outliers" for node in products]


def _split(graph: onnx.GraphProto, node: onnx.NodeProto, weight: onnx.TensorProto, outliers: NDArray[np.int64]) -> None:
    """Add the product of the outlier channels to the output, after the bias, which is fused later (simplify.py)."""
    matrix = numpy_helper.to_array(weight).copy()
    name = node.name
    last = next((other for other in graph.node if other.op_type == "Add" and node.output[0] in other.input), node)
    output = last.output[0]
    graph.initializer.append(numpy_helper.from_array(outliers, f"{name}_channels"))
    graph.initializer.append(numpy_helper.from_array(matrix[outliers], f"{name}_outlier_weight"))
    matrix[outliers] = 0.0
    weight.CopyFrom(numpy_helper.from_array(matrix, weight.name))
    last.output[0] = f"{output}_int8"
    added = [
        helper.make_node("Gather", [node.input[0], f"{name}_channels"], [f"{name}_picked"], f"{name}_gather", axis=-1),
        helper.make_node("MatMul", [f"{name}_picked", f"{name}_outlier_weight"], [f"{name}_fp32"], f"{name}_outliers"),
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
