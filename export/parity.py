"""Parity: outputs of the exported model equal the checkpoint's, for every shape and independent of the batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from export.bundle import Parity
from export.checkpoint import TextModel
from export.errors import ParityError
from export.heads import Head, head_of
from export.pooling import pad_rows
from export.session import OnnxSession

BATCHES = (1, 64)
# The largest difference of a score between a text alone and in a batch.
MAX_BATCH_DIFFERENCE = 1e-3


def measure_parity(model: TextModel, session: OnnxSession, texts: Sequence[str]) -> Parity:
    """Compare the two models. `texts` are the holdout. Raises ParityError when a limit here or of the head is exceeded.

    Returns the largest output difference on random ids at lengths 1, 2 and max_length with batches of 1 and 64, the
    share of holdout labels that moved (classifier) or the smallest cosine (ranker), and the largest score difference
    between a text alone and in a random batch.
    """
    manifest = session.bundle.manifest
    head = head_of(manifest.kind)
    max_length = manifest.max_length
    rng = np.random.default_rng(0)
    tokens = model.encoder.get_input_embeddings().num_embeddings
    shapes = {}
    for length in (1, 2, max_length):
        for batch in BATCHES:
            rows = rng.integers(0, tokens, (batch, length)).tolist()
            difference = np.abs(session.run(rows) - _torch_run(model, rows)).max()
            if not np.isfinite(difference):
                raise ParityError(f"The exported model gives no finite output at batch {batch}, length {length}.")
            shapes[f"{batch}x{length}"] = round(float(difference), 4)
    rows = [encoded.ids for encoded in session.encoder.encode(texts)]
    expected = np.concatenate([_torch_run(model, [row]) for row in rows])
    alone = np.concatenate([session.run([row]) for row in rows])
    together = run_in_random_batches(session, rows, rng)
    difference = batch_difference(head, alone, together)
    parity = Parity(
        texts=len(rows),
        max_difference_by_shape=shapes,
        max_difference=round(float(np.abs(alone - expected).max()), 4),
        max_batch_difference=difference,
        **head.agreement(expected, alone, together),
    )
    head.check(parity, manifest.precision)
    if difference > MAX_BATCH_DIFFERENCE or parity.labels_moved_by_batch:
        raise ParityError(
            f"An answer depends on its batch-mates: scores move by {difference:.4f} "
            f"(at most {MAX_BATCH_DIFFERENCE}). Was the model quantized dynamically?"
        )
    return parity


def run_in_random_batches(
    session: OnnxSession, rows: Sequence[Sequence[int]], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Outputs in the order of `rows`, computed in shuffled batches of random size from 2 to 32."""
    order = rng.permutation(len(rows))
    output: NDArray[np.float32] | None = None
    at = 0
    while at < len(order):
        part = order[at : at + int(rng.integers(2, 33))]
        at += len(part)
        result = session.run([rows[i] for i in part])
        if output is None:
            output = np.empty((len(rows), result.shape[1]), np.float32)
        output[part] = result
    assert output is not None
    return output


def batch_difference(head: Head, alone: NDArray[np.float32], together: NDArray[np.float32]) -> float:
    """The largest difference of a score between texts alone and in batches, from outputs of (texts, width)."""
    return float(np.abs(head.scores(alone) - head.scores(together)).max())


def _torch_run(model: TextModel, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    with torch.no_grad():
        output: NDArray[np.float32] = model(*pad_rows(rows)).numpy()
    return output
