"""Checkpoint to Bundle: trace, optimize for the target, check against PyTorch, write."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from export.bundle import Bundle, Precision, write_bundle
from export.checkpoint import TextModel, load_checkpoint
from export.graph.fused import with_fused_operators
from export.graph.optimize import quantize_static_int8, to_fp16
from export.graph.unpadded import Unpadded, can_be_unpadded
from export.parity import measure_parity
from export.session import OnnxSession
from export.tokenizer import TextEncoder


def export_bundle(
    checkpoint: Path,
    path: Path,
    *,
    fields: Mapping[str, Any],
    calibration: Sequence[str],
    holdout: Sequence[str],
    finish: Callable[[OnnxSession], tuple[dict[str, Any], dict[str, Any]]],
    precision: Precision = "int8",
) -> Bundle:
    """Export `checkpoint` to a new bundle at `path`, with its parity against PyTorch in the manifest.

    `fields` are the manifest's task, kind, labels, max_length, base_model and data. `calibration` are training
    texts, from which int8 takes the range of every activation; `holdout` are texts that parity is measured on.
    `finish` gets the exported model, which is what will serve, and returns its metrics and the bundle's assets.
    Raises parity.ParityError when the exported model does not answer as the checkpoint does.
    """
    ranker = fields["kind"] == "ranker"
    model, tokenizer = load_checkpoint(checkpoint, normalize=ranker)
    with tempfile.TemporaryDirectory() as tmp:
        tokenizer_json = Path(tmp) / "tokenizer.json"
        tokenizer.backend_tokenizer.save(str(tokenizer_json))
        encoder = TextEncoder(tokenizer_json, fields["max_length"])
        fp32, final = Path(tmp) / "fp32.onnx", Path(tmp) / "final.onnx"
        fused = with_fused_operators(model, tanh_gelu=precision == "int8")
        # A GPU pads gladly, and cannot record a graph whose shapes depend on what is in the mask.
        skips_padding = precision == "int8" and can_be_unpadded(model)
        trace(Unpadded(fused) if skips_padding else fused, tokenizer, fp32)
        if precision == "int8":
            quantize_static_int8(fp32, final, [row.ids for row in encoder.encode(calibration)])
        elif precision == "fp16":
            to_fp16(fp32, final)
        else:
            final = fp32
        created = datetime.now(UTC).isoformat(timespec="seconds")
        draft = {**fields, "precision": precision, "skips_padding": skips_padding, "created": created}
        trial = write_bundle(Path(tmp) / "trial", model=final, tokenizer=tokenizer_json, fields=draft, assets={})
        session = OnnxSession(trial, providers="cpu")
        parity = measure_parity(model, session, holdout)
        metrics, assets = finish(session)
        whole = {**draft, "parity": parity, "metrics": metrics}
        return write_bundle(path, model=final, tokenizer=tokenizer_json, fields=whole, assets=assets)


def trace(model: TextModel | Unpadded, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """The graph of `model` with dynamic batch and length, fp32, at `out`."""
    sample = tokenizer(["a sample to trace", "with two rows"], padding=True, return_tensors="pt")
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals on every call
        program = torch.onnx.export(
            model.eval(),
            (sample["input_ids"], sample["attention_mask"]),
            input_names=["input_ids", "attention_mask"],
            output_names=["output"],
            dynamic_shapes=({0: batch, 1: length}, {0: batch, 1: length}),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(out))
