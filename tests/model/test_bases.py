"""Conformance of base models: every family of encoders is fine-tuned, exported and served, or refused in a sentence.

The bases are tiny and random, but have their family's code and their own kind of tokenizer. The whole product of
families, methods and precisions runs in `make test-slow`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export.bundle import Bundle, Precision
from export.session import OnnxSession
from models.training.candidate import TrainingJob
from models.training.pipeline import build_candidate, export_checkpoint
from tests.helpers.bases import FAMILIES, LONG_TEXT, MAX_LENGTH, TEXTS, MakeVersion, Method, make_base
from tests.helpers.own_corpus import own_data

ORDINARY = {("bert", "full"), ("distilbert", "lora")}
CASES = [
    pytest.param(
        name, method, precision,
        marks=() if (name, method) in ORDINARY and precision == "int8" else pytest.mark.slow,
    )
    for name in FAMILIES for method in ("full", "lora") for precision in ("int8", "fp16", "fp32")
]  # fmt: skip
WITHOUT_FASTEST = ("mpnet", "deberta-v2", "deberta-v3", "modernbert")
ODD_TEXTS = [
    "a", "Tell me  about\tthe comet!", "naïve café", "x" * 300, "¿qué? 你好 привет", "<s> [CLS] </s> [PAD]", LONG_TEXT,
]  # fmt: skip


@pytest.mark.parametrize(("name", "method", "precision"), CASES)
def test_a_base_is_finetuned_exported_and_answers_as_in_pytorch(
    name: str, method: Method, precision: Precision, tiny_version: MakeVersion
) -> None:
    family = FAMILIES[name]
    version = tiny_version(name, method=method, precision=precision)  # checks parity and batch invariance
    manifest = version.bundle.manifest
    attention = family.attention if precision == "int8" else family.attention.replace("unpadded", "fused")
    assert (manifest.attention, manifest.skips_padding) == (attention, attention == "unpadded")
    told = [note for note in manifest.notes if "graph" in note]
    assert len(told) == (name in WITHOUT_FASTEST)
    if told and precision == "int8":
        assert "since its attention" in told[0]
        assert "1.3 times as long" in told[0]
    session = OnnxSession(version.bundle, providers="cpu")
    assert_tokenizes_as_transformers(session, version.checkpoint)
    texts = [*TEXTS, *ODD_TEXTS]
    outputs = session.predict(texts)
    assert np.ptp(outputs[: len(TEXTS)], axis=0).min() > 0.01, "texts differ, so that the comparisons mean something"
    shared = OnnxSession(version.bundle, providers="cpu", shared=True)  # as replicas open it
    np.testing.assert_allclose(shared.predict(texts), outputs, rtol=0, atol=2e-4)
    if precision == "int8":
        assert any(node.op_type == "DequantizeLinear" for node in nodes(version.bundle.model_path)) or any(
            node.op_type == "MatMulIntegerToFloat" for node in nodes(version.bundle.model_path)
        )


def nodes(graph: Path) -> Any:
    return onnx.load(str(graph)).graph.node


def assert_tokenizes_as_transformers(session: OnnxSession, checkpoint: Path) -> None:
    """Token by token, also of cached words, and cut at the same place."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    texts = [*TEXTS, *ODD_TEXTS, *TEXTS]  # again: the words are cached
    expected = tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    assert [list(row.ids) for row in session.encoder.encode(texts)] == expected


@pytest.mark.slow
def test_a_training_says_what_its_base_cannot_do_and_an_export_keeps_to_it(tmp_path: Path) -> None:
    base = make_base(FAMILIES["mpnet"], tmp_path / "base", max_position_embeddings=42)
    file = own_data(tmp_path)
    with file.open("a", encoding="utf-8") as out:
        out.writelines(f"ᠮᠣᠩᠭᠣᠯ ﷽ {i},gardening\n" for i in range(20))
    job = TrainingJob("intent", file, recipe=(("base", str(base)), ("epochs", 1)))
    candidate = build_candidate(job, tmp_path / "home", lambda *_: None)
    manifest = Bundle.open(candidate.bundle).manifest
    assert (manifest.max_length, manifest.base_model) == (40, str(base))
    assert candidate.notes == manifest.notes
    length, alone, graph, unknown = candidate.notes
    assert "at most 40 tokens" in length
    assert "no linear reader" in alone
    assert "800 texts are enough" in alone
    assert "since its attention is code of its own" in graph
    assert "of the tokens of the training texts are unknown" in unknown
    checkpoint = candidate.bundle.parent / "checkpoint"
    home = tmp_path / "home"
    again = export_checkpoint(
        TrainingJob("intent", file, "fp32"), home, checkpoint, tmp_path / "again", manifest
    ).manifest
    assert (again.max_length, again.base_model, again.precision) == (40, str(base), "fp32")
