"""A sentence encoder made in milliseconds: a text's vector is the sum of random vectors of its words."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from export.bundle import Bundle, write_bundle
from models.feedback.store import Store
from models.home import sentence_encoder_folder
from serve.controller.knowledge import KnowledgeReconciler

_WORDS = (
    "how do i return an item send back gift reset my password forgot change address where is order refund when money "
    "comes pay by invoice wie kann ich das zurück ship to canada cancel subscription"
)
_SIZE = 32


def tiny_encoder(home: Path, fingerprint: str = "tiny") -> Bundle:
    """Write the encoder where a home has its own; words that it does not know have no meaning."""
    vocabulary = {word: number for number, word in enumerate(["[UNK]", *dict.fromkeys(_WORDS.split())])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fields = {
        "task": "knowledge", "kind": "ranker", "labels": (), "max_length": 64, "precision": "fp32",
        "base_model": "none", "data": {"fingerprint": fingerprint}, "created": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as tmp:
        tokenizer.save(str(Path(tmp) / "tokenizer.json"))
        graph = _write_graph(Path(tmp) / "model.onnx", len(vocabulary))
        return write_bundle(
            sentence_encoder_folder(home), model=graph, tokenizer=Path(tmp) / "tokenizer.json", fields=fields, assets={}
        )


def _write_graph(file: Path, words: int) -> Path:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    vectors = np.random.default_rng(0).normal(size=(words, _SIZE)).astype(np.float32)
    vectors[0] = 0.001
    nodes = [
        helper.make_node("Gather", ["vectors", "input_ids"], ["found"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "axis"], ["wide"]),
        helper.make_node("Mul", ["found", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["output"], keepdims=0),
    ]
    given = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    out = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", _SIZE])]
    constants = [
        numpy_helper.from_array(vectors, "vectors"),
        numpy_helper.from_array(np.array([2]), "axis"),
        numpy_helper.from_array(np.array([1]), "one"),
    ]
    graph = helper.make_graph(nodes, "tiny", given, out, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(file))
    return file


class NoWorkers:
    """Workers of a controller whose encoder is there already, and which so starts none."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was called")


def compute_vectors(home: Path, store: Store) -> None:
    """Do what the controller does with new entries."""
    KnowledgeReconciler(home, store, NoWorkers()).step()
