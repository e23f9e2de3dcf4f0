"""Exports the knowledge base's encoder. Needs the extra `train`; runs in a process of its own."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from export.base_model import DEFAULT_BASE
from export.bundle import MANIFEST, Lineage, Precision
from export.checkpoint import TextModel, load_base, save_checkpoint
from export.files import exclusive_lock
from export.to_onnx import exported
from models.home import sentence_encoder_folder

_MAX_TOKENS = 128


def make_sentence_encoder(home: Path, texts: Sequence[str], precision: Precision = "int8") -> Path:
    """Write the bundle of the default base, unless the home has it; its folder.

    `texts` are those by which int8 is calibrated; the same texts give the same encoder. Raises CheckpointError, and
    ParityError when int8 is too far from PyTorch.
    """
    folder = sentence_encoder_folder(home)
    with exclusive_lock(folder.with_name(f"{folder.name}.lock")):
        if not (folder / MANIFEST).is_file():
            _write(folder, texts, precision)
    return folder


def _write(folder: Path, texts: Sequence[str], precision: Precision) -> None:
    fields = {
        "task": "knowledge", "kind": "ranker", "labels": (), "max_length": _MAX_TOKENS, "base_model": DEFAULT_BASE,
        "data": Lineage(name="none", fingerprint=_fingerprint(texts, precision)),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as tmp:
        encoder, tokenizer = load_base(DEFAULT_BASE)
        model = TextModel(encoder, encoder.config.hidden_size)
        with torch.no_grad():  # the vector is the mean itself
            model.head.weight.copy_(torch.eye(encoder.config.hidden_size))
            model.head.bias.zero_()
        save_checkpoint(Path(tmp) / "checkpoint", model, tokenizer, [])
        with exported(Path(tmp) / "checkpoint", fields=fields, calibration=texts, precision=precision) as made:
            made.write(folder, parity=made.parity(texts), metrics={}, assets={})


def _fingerprint(texts: Sequence[str], precision: Precision) -> str:
    made_from = (DEFAULT_BASE, precision, str(_MAX_TOKENS), *texts)
    return hashlib.sha256("\0".join(made_from).encode()).hexdigest()
