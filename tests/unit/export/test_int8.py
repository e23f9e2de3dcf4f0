"""int8 of a small graph, with all that encoders do: inputs and weights that are shared, GELU, outlier channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.graph.equalize import equalize
from export.graph.optimize import quantize_static_int8
from export.graph.outliers import CHANNELS, split_outliers
from export.graph.products import after_gelu, channel_ranges, in_groups, inputs, matrix, products_of, weights

TOKENS, WIDTH, WIDE = 50, 24, 48
OUTLIER = 5
RNG = np.random.default_rng(0)
CALIBRATION = [RNG.integers(1, TOKENS, length).tolist() for length in (3, 9, 30) * 4]
IDS = RNG.integers(1, TOKENS, (4, 12))


def make_graph(output: str = "output") -> onnx.ModelProto:
    """Two products read `x`; their sum and `x` are multiplied with one weight, the last product is after GELU.

    One token gives channel OUTLIER of `x` 30 times the value of others, and channel 0 is always zero. The weight of
    the first product is also multiplied with a constant, as DeBERTa does with its positions.
    """
    rng = np.random.default_rng(1)
    table = rng.normal(0, 1, (TOKENS, WIDTH))
    table[7, OUTLIER], table[:, 0] = 30, 0
    given = {
        "table": table, "constant": rng.normal(0, 1, (1, WIDTH)),
        "key": rng.normal(0, 0.3, (WIDTH, WIDTH)), "query": rng.normal(0, 0.3, (WIDTH, WIDTH)),
        "shared": rng.normal(0, 0.3, (WIDTH, WIDTH)),
        "up": rng.normal(0, 0.3, (WIDTH, WIDE)), "down": rng.normal(0, 0.3, (WIDE, WIDTH)),
        "key_bias": rng.normal(0, 1, WIDTH), "up_bias": rng.normal(0, 1, WIDE),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "input_ids"], ["x"]),
        node("MatMul", ["constant", "key"], ["position"], "position_product"),
        node("MatMul", ["x", "key"], ["keys"], "key_product"),
        node("Add", ["key_bias", "keys"], ["biased"]),
        node("MatMul", ["x", "query"], ["queries"], "query_product"),
        node("Add", ["biased", "queries"], ["sum"]),
        node("Add", ["sum", "position"], ["placed"]),
        node("MatMul", ["x", "shared"], ["first"], "first_product"),
        node("MatMul", ["placed", "shared"], ["second"], "second_product"),
        node("Add", ["first", "second"], ["both"]),
        node("MatMul", ["both", "up"], ["wide"], "up_product"),
        node("Add", ["wide", "up_bias"], ["before"]),
        node("Gelu", ["before"], ["after"]),
        node("MatMul", ["after", "down"], ["output"], "down_product"),
    ]
    shape = ["batch", "length"]
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [*shape, WIDTH])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in given.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto | Path, ids: NDArray[np.int64] = IDS) -> NDArray[np.float32]:
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(given, providers=["CPUExecutionProvider"])
    output: NDArray[np.float32] = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
    return output


@pytest.fixture
def quantized(tmp_path: Path) -> Path:
    onnx.save(make_graph(), str(tmp_path / "fp32.onnx"))
    quantize_static_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", CALIBRATION)
    return tmp_path / "int8.onnx"


def test_products_with_a_constant_stay_and_those_that_share_are_one_group() -> None:
    products = products_of(make_graph().graph)
    assert "position_product" not in {node.name for node in products}
    found = {frozenset(node.name.removesuffix("_product") for node in group) for group in in_groups(products)}
    assert found == {frozenset({"key", "query", "first", "second"}), frozenset({"up"}), frozenset({"down"})}
    one = next(group for group in in_groups(products) if len(group) == 4)
    assert (set(inputs(one)), set(weights(one))) == ({"x", "placed"}, {"key", "query", "shared"})


@pytest.mark.parametrize("rewrite", [equalize, split_outliers])
def test_before_rounding_a_rewrite_changes_no_output(rewrite: Callable[..., None]) -> None:
    model = make_graph()
    products = products_of(model.graph)
    ranges = channel_ranges(model, inputs(products), CALIBRATION)
    rewrite(model.graph, products, ranges)
    np.testing.assert_allclose(run(model), run(make_graph()), rtol=0, atol=1e-4)
    for name, found in channel_ranges(model, inputs(products), CALIBRATION).items():
        if rewrite is equalize:
            np.testing.assert_allclose(ranges[name].high, found.high, rtol=1e-4, atol=1e-5)
        else:
            assert np.count_nonzero(ranges[name].largest) <= found.high.size - CHANNELS


def test_equalized_channels_differ_less() -> None:
    model = make_graph()
    products = [node for node in products_of(model.graph) if node.input[0] not in after_gelu(model.graph)]
    ranges = channel_ranges(model, inputs(products), CALIBRATION)
    before = ranges["x"].largest
    equalize(model.graph, products, ranges)
    after = ranges["x_equalized"].largest
    assert after[OUTLIER] / np.median(after) < 0.5 * before[OUTLIER] / np.median(before)


def test_an_outlier_channel_does_not_cost_the_others_their_precision(tmp_path: Path) -> None:
    model = make_graph(output="queries")
    onnx.save(model, str(tmp_path / "fp32.onnx"))
    quantize_static_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", CALIBRATION)
    table, weight = (matrix(model.graph, name) for name in ("table", "query"))
    steps = np.ptp(table) / 255, np.abs(weight).max(0) / 127
    with_one_scale = rounded(table, steps[0])[IDS] @ rounded(weight, steps[1])
    expected = run(model)
    error = np.abs(run(tmp_path / "int8.onnx") - expected).mean()
    assert error < 0.5 * np.abs(with_one_scale - expected).mean()


def rounded(values: NDArray[np.float32], step: Any) -> NDArray[np.float32]:
    result: NDArray[np.float32] = np.rint(values / step) * step
    return result


def test_only_the_products_are_int8_each_with_its_bias(quantized: Path) -> None:
    graph = onnx.load(str(quantized)).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 6
    assert kinds.count("QuantizeLinear") == 4  # for each activation that products read
    assert {node.name for node in graph.node if node.op_type == "MatMul"} == {
        "position_product",
        "down_product_outliers",
    }
    assert {node.input[6] for node in graph.node if node.op_type == "MatMulIntegerToFloat"} == {
        "key_bias",
        "up_bias",
        "",
    }
    read = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= read
    assert not {"query", "shared", "up", "down"} & read  # no fp32 copy of a weight is left


def test_an_int8_answer_is_its_texts_alone_and_finite_beyond_the_calibration(quantized: Path) -> None:
    together = run(quantized)
    for i, row in enumerate(IDS):
        np.testing.assert_array_equal(run(quantized, row[None]), together[i : i + 1])
    assert np.isfinite(run(quantized, np.arange(TOKENS)[None])).all()
