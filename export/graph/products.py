"""The matrix products of an encoder that become int8: which they are, and the ranges of their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.tokenizer import pad


@dataclass(frozen=True)
class Range:
    """The smallest and the largest value of each channel of an activation, both (channels,)."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]

    @property
    def largest(self) -> NDArray[np.float32]:
        """The largest absolute value of each channel."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


Ranges = dict[str, Range]
"""by name of the activation"""
Products = Sequence[onnx.NodeProto]


def products_of(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The products of an activation with a weight.

    Not those of two weights, which onnxruntime computes once, when it loads the model.
    """
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    on_text = {value.name for value in graph.input}
    for node in graph.node:
        if not on_text.isdisjoint(node.input):
            on_text.update(node.output)
    return [n for n in graph.node if n.op_type == "MatMul" and n.input[0] in on_text and n.input[1] in matrices]


def after_gelu(graph: onnx.GraphProto) -> set[str]:
    """The outputs of GELU, and of GELU(a) * b, which ModernBERT has."""
    found = {name for node in graph.node if node.op_type == "Gelu" for name in node.output}
    gated = [node for node in graph.node if node.op_type == "Mul" and not found.isdisjoint(node.input)]
    return found | {name for node in gated for name in node.output}


def in_groups(products: Products) -> list[list[onnx.NodeProto]]:
    """Products that share an input (queries, keys and values) or a weight (ALBERT's layers) are in one group."""
    groups: list[list[onnx.NodeProto]] = []
    for node in products:
        apart: list[list[onnx.NodeProto]] = []
        group = [node]
        for other in groups:
            if {*inputs(other), *weights(other)}.isdisjoint(node.input):
                apart.append(other)
            else:
                group = [*other, *group]
        groups = [*apart, group]
    return groups


def inputs(group: Products) -> list[str]:
    """The activations that the products of a group read."""
    return list(dict.fromkeys(node.input[0] for node in group))


def weights(group: Products) -> list[str]:
    """The weights of a group."""
    return list(dict.fromkeys(node.input[1] for node in group))


def matrix(graph: onnx.GraphProto, name: str) -> NDArray[np.float32]:
    """A copy of the weight `name`, (channels of the input, channels of the output)."""
    tensor = next(tensor for tensor in graph.initializer if tensor.name == name)
    value: NDArray[np.float32] = numpy_helper.to_array(tensor).copy()
    return value


def give_weight(graph: onnx.GraphProto, group: Products, old: str, new: str, value: NDArray[np.float32]) -> None:
    """Let the products of `group` with the weight `old` have `value`, as `new`. Other readers of `old` keep it."""
    graph.initializer.append(numpy_helper.from_array(value, new))
    for node in group:
        if node.input[1] == old:
            node.input[1] = new


def insert_after(graph: onnx.GraphProto, output: str, nodes: Sequence[onnx.NodeProto]) -> None:
    """Insert `nodes` behind the node that computes `output`."""
    at = next((i for i, node in enumerate(graph.node) if output in node.output), -1) + 1
    for offset, node in enumerate(nodes):
        graph.node.insert(at + offset, node)


def channel_ranges(model: onnx.ModelProto, names: Sequence[str], rows: Sequence[Sequence[int]]) -> Ranges:
    """The ranges of the activations `names` over `rows`, the token ids of calibration texts, run one at a time."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    for name in names:
        probe.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    ranges: Ranges = {}
    for row in rows:
        ids, mask = pad([row])
        for name, value in zip(
            names, session.run(list(names), {"input_ids": ids, "attention_mask": mask}), strict=True
        ):
            channels = value.reshape(-1, value.shape[-1])
            low, high = channels.min(0), channels.max(0)
            if name in ranges:
                low, high = np.minimum(ranges[name].low, low), np.maximum(ranges[name].high, high)
            ranges[name] = Range(low, high)
    return ranges
