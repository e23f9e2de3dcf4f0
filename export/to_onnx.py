"""Export a checkpoint to a Bundle: trace, optimize for the target, compare with PyTorch, evaluate, write."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from export.base_model import DEFAULT_BASE
from export.bundle import LINEAR, SYMBOLS, Bundle, Parity, Precision, sha256_of, write_bundle
from export.checkpoint import TextModel, linear_record, load_base, load_checkpoint, max_tokens, text_encoder
from export.errors import CheckpointError
from export.graph.optimize import quantize_static_int8, to_fp16
from export.graph.trace import trace_fastest
from export.linear import LinearReader
from export.model import Model
from export.parity import measure_parity

_MIN_TOKENS = 8


class CheckedBase(NamedTuple):
    """What a base model can do."""

    max_length: int
    """tokens of a text: fewer than asked for when the base has fewer positions"""
    notes: tuple[str, ...]


def check_base(name: str, max_length: int) -> CheckedBase:
    """Check that a model fine-tuned from the base `name` can be exported, before the work of training it.

    Raises CheckpointError.
    """
    encoder, _ = load_base(name)
    found = max_tokens(encoder, max_length)
    if found < _MIN_TOKENS:
        raise CheckpointError(f"The base model {name!r} does not compute a text of {_MIN_TOKENS} tokens.")
    if name != DEFAULT_BASE:
        with tempfile.TemporaryDirectory() as tmp:
            trace_fastest(
                TextModel(encoder, 2), Path(tmp) / "graph.onnx", max_length=found, unpadded=True, tanh_gelu=True
            )
    if found == max_length:
        return CheckedBase(found, ())
    return CheckedBase(
        found,
        (f"The base reads at most {found} tokens of a text, where {max_length} are usual: longer texts are cut.",),
    )


@dataclass(frozen=True)
class Exported:
    """An exported model that is not yet a bundle: check parity, evaluate, then `write`."""

    model: Model
    """as it will serve, on the CPU"""
    _checkpoint: TextModel
    _graph: Path
    _tokenizer: Path
    _fields: Mapping[str, Any]
    _assets: Mapping[str, Any]
    _arrays: Mapping[str, NDArray[Any]] | None

    def parity(self, texts: Sequence[str]) -> Parity:
        """Compare the encoder's outputs with the checkpoint's on `texts`, the holdout.

        Raises ParityError when they differ.
        """
        assert self.model.session is not None
        return measure_parity(self._checkpoint, self.model.session, texts)

    def write(
        self,
        path: Path,
        *,
        parity: Parity,
        metrics: Mapping[str, float],
        assets: Mapping[str, Any],
        towers: Mapping[str, NDArray[Any]] | None = None,
        notes: Sequence[str] = (),
    ) -> Bundle:
        """Write the bundle, with parity, metrics and notes in its manifest; `assets` and `towers` as in `write_bundle`.

        Raises FileExistsError if `path` exists.
        """
        noted = [*self._fields["notes"], *notes]
        fields = {**self._fields, "parity": parity, "metrics": metrics, "notes": noted}
        own = {**self._assets, **assets}
        return write_bundle(
            path, model=self._graph, tokenizer=self._tokenizer, fields=fields, assets=own, arrays=self._arrays,
            towers=towers,
        )  # fmt: skip


@contextmanager
def exported(
    checkpoint: Path, *, fields: Mapping[str, Any], calibration: Sequence[str], precision: Precision = "int8"
) -> Iterator[Exported]:
    """Export `checkpoint` to a temporary folder, which is deleted at the end of the block.

    `fields` are the manifest's task, kind, labels, max_length, base_model and data. A linear reader of the checkpoint
    comes along. `calibration` are training texts,
    from which int8 gets the range of every activation. Raises CheckpointError when `checkpoint` is not a checkpoint.
    """
    model, tokenizer = load_checkpoint(checkpoint)
    with tempfile.TemporaryDirectory() as tmp:
        tokenizer_json = Path(tmp) / "tokenizer.json"
        tokenizer.backend_tokenizer.save(str(tokenizer_json))
        encoder = text_encoder(tokenizer, fields["max_length"])
        assets = {SYMBOLS: encoder.symbols} if encoder.symbols else {}
        fp32, final = Path(tmp) / "fp32.onnx", Path(tmp) / "final.onnx"
        for_cpu = precision == "int8"
        # Not for GPUs: padding is cheap there, and a CUDA graph cannot have shapes that depend on the mask's values.
        graph = trace_fastest(model, fp32, max_length=encoder.max_length, unpadded=for_cpu, tanh_gelu=for_cpu)
        if precision == "int8":
            quantize_static_int8(fp32, final, [row.ids for row in encoder.encode(calibration)])
        elif precision == "fp16":
            to_fp16(fp32, final)
        else:
            final = fp32
        created = datetime.now(UTC).isoformat(timespec="seconds")
        draft = {**fields, "precision": precision, "created": created}
        draft |= {"attention": graph.attention, "skips_padding": graph.attention == "unpadded"}
        draft["notes"] = [*fields.get("notes", ()), *([graph.note] if graph.note else [])]
        arrays = None
        if (record := linear_record(checkpoint)) is not None:
            arrays = LinearReader.load(checkpoint / LINEAR, record, len(fields["labels"])).arrays
            draft["linear"] = record.model_copy(update={"tokenizer": sha256_of(tokenizer_json)})
        unmeasured = write_bundle(
            Path(tmp) / "bundle", model=final, tokenizer=tokenizer_json, fields=draft, assets=assets, arrays=arrays
        )
        opened = Model.open(unmeasured, providers="cpu")
        yield Exported(opened, model, final, tokenizer_json, draft, assets, arrays)
