"""Bundles of two readers, made by hand in milliseconds: a tokenizer of a few words, a linear reader, a graph."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from export.bundle import SYMBOLS, TOKENIZER, Blend, Bundle, EarlyAnswers, LinearRecord, sha256_of, write_bundle
from export.linear import ngram_keys
from export.session import text_encoder
from export.tokenizer import Ids
from models.data.dataset import load_dataset
from models.releases.release import Release, read_release, write_release

LABELS = ("cancel_order", "track_order", "out_of_scope")
SURE = {"cancel it": "cancel_order", "track it": "track_order"}
"""texts that the linear reader answers alone, with their labels"""
UNSURE = "it"
MAX_LENGTH = 128
_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_WORDS = (*_SPECIALS, "cancel", "track", "it", *(f"w{number}" for number in range(100)))
_STRONG = 20.0  # weight of a text's n-grams for its label
_EARLY = EarlyAnswers(above=0.9, min_known=0.8, share=0.6, agreement=0.995, accuracy=0.99)

Arrays = dict[str, NDArray[Any]]


def tiny_tokenizer(file: Path) -> Path:
    """Write a tokenizer that splits at spaces to `file`."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(_WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(word, _WORDS.index(word)) for word in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.save(str(file))
    return file


def linear_arrays() -> Arrays:
    """The arrays of a linear reader that knows the texts of SURE, and the text UNSURE without an opinion of it."""
    rows = [tuple(map(_WORDS.index, ("[CLS]", *text.split(), "[SEP]"))) for text in (*SURE, UNSURE)]
    return memorized(rows, [*map(LABELS.index, SURE.values()), None], len(LABELS))


def memorized(rows: Sequence[Ids], labels: Sequence[int | None], count: int) -> Arrays:
    """The arrays of a linear reader of so many labels that is sure of the texts with these token ids and labels."""
    keys = np.unique(np.concatenate([ngram_keys(ids, 2) for ids in rows]))
    weights = np.zeros((len(keys), count), np.float16)
    for ids, label in zip(rows, labels, strict=True):
        if label is not None:
            weights[keys.searchsorted(ngram_keys(ids, 2)), label] = _STRONG
    idf, bias = np.ones(len(keys), np.float32), np.zeros(count, np.float32)
    return {"keys": keys, "idf": idf, "weights": weights, "bias": bias}


def tiny_bundle(
    path: Path,
    *,
    encoder: bool = True,
    linear: bool = True,
    early: EarlyAnswers | None = _EARLY,
    arrays: Mapping[str, NDArray[Any]] | None = None,
    tokenizer_sha256: str | None = None,
    slow: int = 1,
) -> Bundle:
    """Write a bundle of the intent task with either reader or both. The graph takes time in proportion to `slow`, a
    power of two.

    `arrays` and `tokenizer_sha256` replace those of a reader that fits.
    """
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = tiny_tokenizer(Path(folder) / "tokenizer.json")
        record = linear_record(tokenizer_sha256 or sha256_of(tokenizer), early)
        graph = _write_graph(Path(folder) / "model.onnx", slow) if encoder else None
        fields = {
            "task": "intent", "kind": "classifier", "labels": LABELS, "max_length": MAX_LENGTH, "precision": "fp32",
            "base_model": "none", "data": {}, "created": "2026-01-01T00:00:00+00:00",
            "linear": record if linear else None,
        }  # fmt: skip
        given = {} if not linear else linear_arrays() if arrays is None else arrays
        return write_bundle(path, model=graph, tokenizer=tokenizer, fields=fields, assets={}, arrays=given)


def linear_record(tokenizer_sha256: str, early: EarlyAnswers | None = _EARLY) -> LinearRecord:
    blend = Blend(encoder=0.7, linear=0.3, linear_alone=1.0)
    return LinearRecord(
        max_ngram=2, sublinear=True, regularization=20.0, tokenizer=tokenizer_sha256, blend=blend, early=early
    )


def tiny_home(home: Path, **options: Any) -> Path:
    """A home whose intent task serves a tiny bundle as version 1; `options` are those of `tiny_bundle`."""
    tiny_bundle(home / "bundles" / "intent" / "1", **options)
    release_tiny(home, "1")
    return home


def release_tiny(home: Path, champion: str) -> None:
    path = f"bundles/intent/{champion}"
    write_release(home, Release(task="intent", champion=champion, versions={champion: path}))


def _write_graph(file: Path, slow: int) -> Path:
    """A graph whose logits are the sum of a vector a token, through a product with `slow` columns for each label."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    width = slow * len(LABELS)
    # Multiples of 1/64, whose sums are exact in any order, so that a text alone and one among others have one output.
    vectors = rng.integers(-1, 2, (len(_WORDS), 64)).astype(np.float32)
    head = rng.integers(-1, 2, (64, width)).astype(np.float32) / 64
    fold = np.tile(np.eye(len(LABELS), dtype=np.float32), (slow, 1)) / slow
    nodes = [
        helper.make_node("Gather", ["vectors", "input_ids"], ["found"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["found", "column"], ["kept"]),
        helper.make_node("MatMul", ["kept", "head"], ["wide"]),
        helper.make_node("MatMul", ["wide", "fold"], ["tokens"]),
        helper.make_node("ReduceSum", ["tokens", "middle"], ["output"], keepdims=0),
    ]
    constants = {"vectors": vectors, "head": head, "fold": fold, "last": np.array([2]), "middle": np.array([1])}
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", len(LABELS)])]
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(file))
    return file


def release_sure_version(home: Path) -> list[str]:
    """Release a version of intent with the champion's encoder and a reader that is sure of these texts, one a label."""
    release = read_release(home, "intent")
    champion = Bundle.open(home / release.versions[release.champion])
    manifest = champion.manifest
    text_of = {example.label: example.text for example in load_dataset("intent").train}
    texts = [text_of[label] for label in manifest.labels]
    rows = [encoded.ids for encoded in text_encoder(champion).encode(texts)]
    assets = ("known_questions", SYMBOLS)
    write_bundle(
        home / "bundles" / "intent" / "99",
        model=champion.model_path,
        tokenizer=champion.tokenizer_path,
        fields={
            **manifest.model_dump(exclude={"format", "files", "has_encoder"}),
            "linear": linear_record(manifest.files[TOKENIZER]),
        },
        assets={name: value for name in assets if (value := champion.asset(name)) is not None},
        arrays=memorized(rows, range(len(texts)), len(texts)),
    )
    release_tiny(home, "99")
    return texts
