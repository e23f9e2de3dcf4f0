"""The graph that leaves padding out: the answers of the model it was traced from, and nothing computed in vain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from transformers import BertConfig, BertModel

from export.checkpoint import TextModel
from export.graph.fused import with_fused_operators
from export.graph.optimize import quantize_static_int8
from export.graph.trace import trace, trace_fastest
from export.graph.unpadded import Unpadded
from export.tokenizer import pad
from tests.helpers.small_model import small_classifier

LONGEST = 40
SHAPES = ([1], [7], [LONGEST], [5, 5, 5], [1, LONGEST], [9, 3, 40, 1, 17], list(range(1, 33)))


@dataclass(frozen=True)
class Traced:
    model: TextModel
    padded: Path
    unpadded: Path

    def answer(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.no_grad():
            output: NDArray[np.float32] = self.model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        return output


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """A small untrained classifier, with padding and without."""
    folder = tmp_path_factory.mktemp("traced")
    model, _ = small_classifier(LONGEST)
    fused = with_fused_operators(model, tanh_gelu=False)
    trace(fused, folder / "padded.onnx")
    trace(Unpadded(fused), folder / "unpadded.onnx")
    return Traced(model, folder / "padded.onnx", folder / "unpadded.onnx")


def run(graph: Path, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    output: NDArray[np.float32] = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    return output


def some_rows(lengths: list[int]) -> list[list[int]]:
    rng = np.random.default_rng(len(lengths))
    return [rng.integers(1000, 20000, length).tolist() for length in lengths]


@pytest.mark.parametrize("lengths", SHAPES, ids=str)
def test_the_answer_is_the_models(traced: Traced, lengths: list[int]) -> None:
    ids, mask = pad(some_rows(lengths))
    np.testing.assert_allclose(run(traced.unpadded, ids, mask), traced.answer(ids, mask), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "shape"), [("padded", (3, 17)), ("unpadded", (1, 9 + 3 + 17))])
def test_a_layer_computes_no_padding(traced: Traced, name: str, shape: tuple[int, int]) -> None:
    model = onnx.load(str(getattr(traced, name)))
    states = [node.output[0] for node in model.graph.node if node.op_type == "LayerNormalization"]
    assert len(states) == 1 + 2 * 2
    model.graph.output.extend(helper.make_tensor_value_info(state, TensorProto.FLOAT, None) for state in states)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    ids, mask = pad(some_rows([9, 3, 17]))
    for state in session.run(states, {"input_ids": ids, "attention_mask": mask}):
        assert state.shape[:2] == shape


def test_padding_weighs_nothing_and_is_no_number_that_processors_are_slow_with(traced: Traced) -> None:
    graph = onnx.load(str(traced.unpadded))
    weights = [node.output[0] for node in graph.graph.node if node.op_type == "Softmax"]
    assert len(weights) == 2
    graph.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in weights)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    ids, mask = pad(some_rows([9, 3, 17]))
    for given in session.run(weights, {"input_ids": ids, "attention_mask": mask}):
        assert given.shape == (3, 4, 17, 17)
        of_padding = given[1, :, :, 3:]
        assert np.finfo(np.float32).tiny * 1e9 < of_padding.min()
        assert of_padding.max() < np.finfo(np.float32).eps ** 2


def test_padding_may_be_anywhere_and_anything(traced: Traced) -> None:
    """A tokenizer may pad on the left, and with any token."""
    rows = some_rows([3, 9])
    ids = np.array([[7] * 6 + rows[0], rows[1]], np.int64)
    mask = np.array([[0] * 6 + [1] * 3, [1] * 9], np.int64)
    expected = traced.answer(ids, mask)
    moved = run(traced.unpadded, ids, mask)
    np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-5)


def test_int8_answers_as_with_padding_and_alone(traced: Traced, tmp_path: Path) -> None:
    calibration = some_rows([5, 12, LONGEST] * 4)
    for name in ("padded", "unpadded"):
        quantize_static_int8(getattr(traced, name), tmp_path / f"{name}.onnx", calibration)
    for lengths in SHAPES:
        rows = some_rows(lengths)
        together = run(tmp_path / "unpadded.onnx", *pad(rows))
        alone = np.concatenate([run(tmp_path / "unpadded.onnx", *pad([row])) for row in rows[:3]])
        np.testing.assert_allclose(together[:3], alone, rtol=0, atol=1e-5)
        np.testing.assert_allclose(together, run(tmp_path / "padded.onnx", *pad(rows)), rtol=0, atol=1e-5)


def test_int8_has_each_bias_in_its_product_and_no_reshape_of_a_reshape(traced: Traced, tmp_path: Path) -> None:
    quantize_static_int8(traced.unpadded, tmp_path / "int8.onnx", some_rows([5, 12] * 4))
    graph = onnx.load(str(tmp_path / "int8.onnx")).graph
    made_by = {name: node for node in graph.node for name in node.output}
    products = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == 2 * 4  # queries, keys and values are one
    assert all(node.input[6].endswith(".bias") for node in products)
    assert not any(node.input[5] for node in products)  # a zero point of zero, which would be multiplied all the same
    dimensions = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    assert not [node for node in graph.node if node.op_type == "Add" and 1 in map(dimensions.get, node.input)]
    reshapes = [node for node in graph.node if node.op_type == "Reshape"]
    assert not [n for n in reshapes if n.input[0] in made_by and made_by[n.input[0]].op_type == "Reshape"]


class CountsItself(BertModel):  # type: ignore[misc]
    """An encoder that takes positions, and does not use them: nothing but its outputs tells."""

    def forward(
        self, input_ids: torch.Tensor, attention_mask: Any = None, position_ids: Any = None, **rest: Any
    ) -> Any:
        return super().forward(input_ids, attention_mask, **rest)


def test_a_graph_whose_outputs_differ_is_not_taken(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64,
        initializer_range=0.15,
    )  # fmt: skip
    torch.manual_seed(0)
    model = TextModel(CountsItself(config, add_pooling_layer=False), 3).eval()
    found = trace_fastest(model, tmp_path / "graph.onnx", max_length=LONGEST, unpadded=True, tanh_gelu=True)
    assert found.attention == "fused"
    assert found.note is not None
    assert "since its outputs would differ from PyTorch's by" in found.note
    ids, mask = pad([[5] * 3, [7] * LONGEST])
    with torch.no_grad():
        expected = model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    np.testing.assert_allclose(run(tmp_path / "graph.onnx", ids, mask), expected, rtol=0, atol=2e-3)
