"""From a model in PyTorch to an ONNX graph in fp32: the fastest graph that is right.

Three graphs are tried, the fastest first. Whether one is right is not told by the name of the encoder's family: the
traced graph's outputs are compared with the model's, on lengths up to the longest and in batches. Measurements:
docs/decisions/0032-any-base.md.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnxscript import ir
from torch import nn

from export.bundle import Attention
from export.checkpoint import TextModel
from export.errors import CheckpointError
from export.graph.fused import with_fused_operators, with_plain_attention
from export.graph.unpadded import Unpadded, why_padded
from export.pooling import pad_rows
from export.tokenizer import pad

log = logging.getLogger("flywheel.export")

# A graph is right when no output differs from the model's by more than this share of the largest. Correct graphs differ
# in the last bits; one with wrong positions, or without its attention's windows, by a tenth and more.
_MAX_DIFFERENCE = 1e-3
_FUSED_OPERATOR = "MultiHeadAttention"
_PADDED = (
    "This version's graph computes padding too, since {reason}. Single texts take as long as without; a batch of 8 "
    "texts of unlike lengths takes about 1.3 times as long, one of 32 twice."
)
_PLAIN = "This version's graph computes attention in single operators and not in onnxruntime's own, since {reason}."


class Traced(NamedTuple):
    """How a graph computes attention, and why not in a faster way; None if it is the fastest for its precision."""

    attention: Attention
    note: str | None


def trace_fastest(model: TextModel, out: Path, *, max_length: int, unpadded: bool, tanh_gelu: bool) -> Traced:
    """Write the fastest right fp32 graph of `model`, for texts of up to `max_length` tokens, to `out`.

    With `unpadded`, one without padding is tried first. Raises CheckpointError when no graph is right.
    """
    rows = _rows(model, max_length)
    plain = with_plain_attention(model, tanh_gelu=tanh_gelu).eval()
    with torch.no_grad():
        expected = plain(*pad_rows(rows)).numpy()
    reasons: list[str] = []
    for attention, make in _graphs(model, plain, unpadded, tanh_gelu, reasons):
        try:
            trace(make(), out)
        except Exception as error:  # torch.export raises what it finds in the model's code
            log.debug("%s: not traced with %s attention", model.encoder.config.model_type, attention, exc_info=True)
            reasons.append(_reason(error))
            continue
        difference = _difference(out, rows, expected)
        if difference <= _MAX_DIFFERENCE:
            found = _attention_of(out, attention)
            return Traced(found, _note(found, reasons, unpadded))
        reasons.append(f"its outputs would differ from PyTorch's by {difference:.1%}")
    raise CheckpointError(
        f"The encoder ({model.encoder.config.model_type}) cannot be exported to ONNX: {reasons[-1]}. Give another base."
    )


def _graphs(
    model: TextModel, plain: TextModel, unpadded: bool, tanh_gelu: bool, reasons: list[str]
) -> Iterator[tuple[Attention, Callable[[], nn.Module]]]:
    fused = with_fused_operators(model, tanh_gelu=tanh_gelu)
    if unpadded:
        if (reason := why_padded(fused)) is None:
            yield "unpadded", lambda: Unpadded(copy.deepcopy(fused))
        else:
            reasons.append(reason)
    yield "fused", lambda: fused
    yield "plain", lambda: plain


def _rows(model: TextModel, max_length: int) -> list[list[int]]:
    """Texts of random token ids of many lengths, one of them the longest."""
    rng = np.random.default_rng(0)
    tokens = model.encoder.get_input_embeddings().num_embeddings
    lengths = sorted({1, 2, 7, max_length // 2, max_length - 1, max_length} - {0})
    return [rng.integers(0, tokens, length).tolist() for length in lengths]


def _difference(graph: Path, rows: Sequence[Sequence[int]], expected: np.ndarray) -> float:
    """The largest difference of an output, alone or in a batch, as a share of the largest; infinite if it fails."""
    try:
        session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
        together, *alone = (
            session.run(None, dict(zip(("input_ids", "attention_mask"), pad(batch), strict=True)))[0]
            for batch in (rows, *([row] for row in rows))
        )
    except Exception as error:  # onnxruntime raises a dozen types
        log.debug("%s does not run: %s", graph, error)
        return float("inf")
    worst = max(np.abs(together - expected).max(), np.abs(np.concatenate(alone) - expected).max())
    return float(np.nan_to_num(worst / np.abs(expected).max(), nan=np.inf))


def _attention_of(graph: Path, traced: Attention) -> Attention:
    """What the graph has: an encoder with attention of its own was traced as `fused` without the operator."""
    if traced != "fused":
        return traced
    nodes = onnx.load(str(graph), load_external_data=False).graph.node
    return "fused" if any(node.op_type == _FUSED_OPERATOR for node in nodes) else "plain"


def _note(found: Attention, reasons: Sequence[str], unpadded: bool) -> str | None:
    if unpadded and found != "unpadded":
        return _PADDED.format(reason=reasons[0])
    if not unpadded and found == "plain":
        return _PLAIN.format(reason=reasons[0] if reasons else "the encoder's attention is code of its own")
    return None


def _reason(error: BaseException) -> str:
    """The first cause in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, NotImplementedError) and error.args:
        return str(error)
    return f"it cannot be traced so ({type(error).__name__})"


def trace(model: nn.Module, out: Path) -> None:
    """Write the fp32 graph of `model`, with dynamic batch and length, to `out`."""
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    for noisy in ("torch.onnx", "onnxscript"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals on every call
        program = torch.onnx.export(
            model.eval(),
            pad_rows([[0] * 6, [0] * 5]),
            input_names=["input_ids", "attention_mask"],
            output_names=["output"],
            dynamic_shapes=({0: batch, 1: length}, {0: batch, 1: length}),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    ir.save(program.model, str(out))  # in one file, also a large one
