"""Export a checkpoint to a Bundle: trace, optimize for the target, compare with PyTorch, evaluate, write."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from export.bundle import Bundle, Parity, Precision, write_bundle
from export.checkpoint import TextModel, load_checkpoint
from export.graph.fused import with_fused_operators
from export.graph.optimize import quantize_static_int8, to_fp16
from export.graph.unpadded import Unpadded, can_be_unpadded
from export.heads import head_of
from export.parity import measure_parity
from export.session import OnnxSession
from export.tokenizer import TextEncoder


@dataclass(frozen=True)
class Exported:
    """An exported model that is not yet a bundle: check parity, evaluate, then `write`."""

    session: OnnxSession
    """the model as it will serve, on the CPU"""
    _checkpoint: TextModel
    _model: Path
    _tokenizer: Path
    _fields: Mapping[str, Any]

    def parity(self, texts: Sequence[str]) -> Parity:
        """Compare its outputs with the checkpoint's on `texts`, the holdout. Raises ParityError when they differ."""
        return measure_parity(self._checkpoint, self.session, texts)

    def write(self, path: Path, *, parity: Parity, metrics: Mapping[str, float], assets: Mapping[str, Any]) -> Bundle:
        """Write the bundle, with parity and metrics in its manifest. Raises FileExistsError when `path` exists."""
        fields = {**self._fields, "parity": parity, "metrics": metrics}
        return write_bundle(path, model=self._model, tokenizer=self._tokenizer, fields=fields, assets=assets)


@contextmanager
def exported(
    checkpoint: Path, *, fields: Mapping[str, Any], calibration: Sequence[str], precision: Precision = "int8"
) -> Iterator[Exported]:
    """Export `checkpoint` to a temporary folder, which is deleted at the end of the block.

    `fields` are the manifest's task, kind, labels, max_length, base_model and data. `calibration` are training texts,
    from which int8 gets the range of every activation. Raises CheckpointError when `checkpoint` is not a checkpoint.
    """
    model, tokenizer = load_checkpoint(checkpoint, normalize=head_of(fields["kind"]).normalize)
    with tempfile.TemporaryDirectory() as tmp:
        tokenizer_json = Path(tmp) / "tokenizer.json"
        tokenizer.backend_tokenizer.save(str(tokenizer_json))
        encoder = TextEncoder(tokenizer_json, fields["max_length"])
        fp32, final = Path(tmp) / "fp32.onnx", Path(tmp) / "final.onnx"
        fused = with_fused_operators(model, tanh_gelu=precision == "int8")
        # Not for GPUs: padding is cheap there, and a CUDA graph cannot have shapes that depend on the mask's values.
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
        unmeasured = write_bundle(Path(tmp) / "bundle", model=final, tokenizer=tokenizer_json, fields=draft, assets={})
        yield Exported(OnnxSession(unmeasured, providers="cpu"), model, final, tokenizer_json, draft)


def trace(model: TextModel | Unpadded, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write the fp32 graph of `model`, with dynamic batch and length, to `out`."""
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
