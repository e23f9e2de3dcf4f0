"""Optimization of an exported graph for its target: int8 for CPUs, fp16 for GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import CalibrationMethod
from onnxruntime.transformers.float16 import convert_float_to_float16

from export.graph.outliers import split_outliers
from export.graph.simplify import with_bias_in_products, without_reshapes_in_a_row
from export.tokenizer import pad

# Only the matrix products of the encoder. The rest (attention scores, softmax, layer norm) costs little time and would
# lose the most accuracy. The head stays in fp32, since its input is a mean whose last bit differs between batches:
# rounded to int8, that bit became a step of 0.002 in the output.
_QUANTIZED = ("MatMul",)


class _Texts(CalibrationDataReader):  # type: ignore[misc]
    """Feeds calibration texts one at a time, so that padding does not affect activation ranges."""

    def __init__(self, rows: Sequence[Sequence[int]]):
        self._rows = iter(rows)

    def get_next(self) -> dict[str, Any] | None:
        row = next(self._rows, None)
        if row is None:
            return None
        ids, mask = pad([row])
        return {"input_ids": ids, "attention_mask": mask}


def quantize_static_int8(source: Path, target: Path, calibration: Sequence[Sequence[int]]) -> None:
    """Quantize the graph at `source` to static int8 (QDQ, weights per channel), and write it to `target`.

    Static, since dynamic int8 scales activations by the range of the whole batch, so that an answer depends on the
    other texts of its batch (docs/decisions/0002-static-int8.md). `calibration` are token ids of training texts.
    """
    model = without_reshapes_in_a_row(onnx.load(str(source)))
    del model.graph.value_info[:]  # the exporter's inferred shapes clash with the quantizer's own inference
    weights = {tensor.name for tensor in model.graph.initializer}
    read = _depending_on_text(model.graph)
    products = [n for n in model.graph.node if n.op_type in _QUANTIZED and n.input[1] in weights and n.input[0] in read]
    kept_fp32 = [n.name for n in model.graph.node if n.op_type in _QUANTIZED and n not in products]
    ranges, outlier_products = split_outliers(model, calibration)
    rounded = _copy_inputs_of_products(model.graph, products)
    quantize_static(
        model,
        str(target),
        _Texts(calibration),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(_QUANTIZED),
        nodes_to_exclude=kept_fp32 + outlier_products,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={
            "TensorQuantOverrides": {rounded[name]: given for name, given in ranges.items()},
            # Products output fp32: onnxruntime then runs one MatMulIntegerToFloat instead of requantizing.
            "OpTypesToExcludeOutputQuantization": list(_QUANTIZED),
        },
    )
    onnx.save(with_bias_in_products(onnx.load(str(target))), str(target))


def _depending_on_text(graph: onnx.GraphProto) -> set[str]:
    """The tensors computed from the graph's inputs. onnxruntime computes all others once, when it loads the model."""
    found = {value.name for value in graph.input}
    for node in graph.node:
        if not found.isdisjoint(node.input):
            found.update(node.output)
    return found


def _copy_inputs_of_products(graph: onnx.GraphProto, products: Sequence[onnx.NodeProto]) -> dict[str, str]:
    """Give the products their own copies of their inputs: activation -> the copy to quantize.

    The quantizer rounds a tensor for all its consumers, so the residual connections, and the outlier channels that
    are split off for their precision, would be rounded to int8 too.
    """
    copies: dict[str, str] = {}
    for node in products:
        name = node.input[0]
        if name not in copies:
            copies[name] = f"{name}_rounded"
            after = next(i for i, other in enumerate(graph.node) if name in other.output) + 1
            graph.node.insert(after, onnx.helper.make_node("Identity", [name], [copies[name]], f"{name}_copy"))
            # onnx infers no types after com.microsoft operators, and the quantizer needs this one.
            graph.value_info.append(onnx.helper.make_tensor_value_info(copies[name], onnx.TensorProto.FLOAT, None))
        node.input[0] = copies[name]
    return copies


def to_fp16(source: Path, target: Path) -> None:
    """Convert the graph at `source` to fp16, and write it to `target`; inputs and output keep their types."""
    model = onnx.load(str(source))
    del model.graph.value_info[:]
    onnx.save(convert_float_to_float16(model, keep_io_types=True), str(target))
