"""Keep the few outlier channels of a matrix product out of its int8 range.

In the encoders served here, one or two channels after GELU reach 15 to 25 where the rest stay under 6, and one int8
scale for all of them leaves the rest too coarse: on the seed sentiment holdout it moved 9.7 % of the labels. So
x W becomes x' W' + x[outliers] W[outliers]: the rows of the outliers are zero in W', which is quantized over the
range of the other channels alone, and the small second product stays in fp32. It is the decomposition of LLM.int8()
(Dettmers et al., 2022, https://arxiv.org/abs/2208.07339) with channels fixed at calibration, so that an
answer depends only on its text. Measurements: docs/decisions/0002-static-int8.md.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.graph.products import Products, Range, Ranges, give_weight, in_groups, inputs, insert_after, matrix, weights

CHANNELS = 8


def split_outliers(graph: onnx.GraphProto, products: Products, ranges: Ranges) -> None:
    """Split the outlier channels off `products`, in place, and take them out of the `ranges` of their inputs.

    The added products stay in fp32.
    """
    for group in in_groups(products):
        largest = np.max([ranges[name].largest for name in inputs(group)], axis=0)
        outliers = np.sort(np.argsort(-largest)[:CHANNELS])
        for name in inputs(group):
            low, high = ranges[name].low.copy(), ranges[name].high.copy()
            low[outliers] = high[outliers] = 0.0
            ranges[name] = Range(low, high)
        for name in weights(group):
            _split(graph, [node for node in group if node.input[1] == name], name, outliers)


def _split(graph: onnx.GraphProto, sharing: Products, weight: str, outliers: NDArray[np.int64]) -> None:
    """Add the products of the outlier channels to the outputs of `sharing`, whose `weight` loses these rows."""
    rest = matrix(graph, weight)
    channels, kept = f"{sharing[0].name}_channels", f"{sharing[0].name}_outlier_weight"
    graph.initializer.append(numpy_helper.from_array(outliers, channels))
    graph.initializer.append(numpy_helper.from_array(rest[outliers], kept))
    rest[outliers] = 0.0
    give_weight(graph, sharing, weight, f"{weight}_rest", rest)
    for node in sharing:
        _add_outliers(graph, node, channels, kept)


def _add_outliers(graph: onnx.GraphProto, node: onnx.NodeProto, channels: str, kept: str) -> None:
    """Add the product of the outlier channels after the bias, which is fused later (optimize.py), if there is one."""
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
    insert_after(graph, last.output[0], added)
