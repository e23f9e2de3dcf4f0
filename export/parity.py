"""Does the exported model answer as the checkpoint does, whatever the shape and whoever shares the batch?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.checkpoint import TextModel
from export.errors import ParityError
from export.session import OnnxSession
from export.tokenizer import pad

BATCHES = (1, 64)
# int8 may move this share of holdout labels against PyTorch fp32, and still be the same model for its users: the
# labels that move are those that were nearly tied. fp32 and fp16 must move fewer.
MOST_LABELS_MOVED = {"int8": 0.03, "fp16": 0.005, "fp32": 0.0}
# A ranker has no labels; its vectors must point the same way, on average. A single text may stray further: the weights
# of the ranking, and its metrics, come from the exported vectors and not from the checkpoint's.
LEAST_MEAN_COSINE = 0.97
# The same text alone and among others: the largest difference of a score.
MOST_BATCH_DIFFERENCE = 1e-3


def measure_parity(model: TextModel, session: OnnxSession, texts: Sequence[str]) -> dict[str, Any]:
    """Compare and report. `texts` are the holdout. Raises ParityError when a bound above is broken.

    Returns the largest output difference at lengths 1, 2 and max_length with batches of 1 and 64, the share of
    holdout labels that moved (classifier) or the smallest cosine (ranker), and the largest score difference
    between a text alone and in a random batch.
    """
    manifest = session.bundle.manifest
    longest = manifest.max_length
    rng = np.random.default_rng(0)
    shapes = {}
    for length in (1, 2, longest):
        for batch in BATCHES:
            rows = rng.integers(1000, 20000, (batch, length)).tolist()
            difference = np.abs(session.run(rows) - _torch_run(model, rows)).max()
            if not np.isfinite(difference):
                raise ParityError(f"The exported model gives no finite output at batch {batch}, length {length}.")
            shapes[f"{batch}x{length}"] = round(float(difference), 4)
    rows = [encoded.ids for encoded in session.encoder.encode(texts)]
    expected = np.concatenate([_torch_run(model, [row]) for row in rows])
    alone = np.concatenate([session.run([row]) for row in rows])
    together = run_in_random_batches(session, rows, rng)
    report: dict[str, Any] = {
        "texts": len(rows),
        "max_difference_by_shape": shapes,
        "max_difference": round(float(np.abs(alone - expected).max()), 4),
        "max_batch_difference": float(np.abs(scores(alone, manifest.kind) - scores(together, manifest.kind)).max()),
    }
    if manifest.kind == "classifier":
        report["labels_moved"] = round(float((alone.argmax(1) != expected.argmax(1)).mean()), 5)
        report["labels_moved_by_batch"] = int((alone.argmax(1) != together.argmax(1)).sum())
        if report["labels_moved"] > MOST_LABELS_MOVED[manifest.precision]:
            raise ParityError(
                f"{manifest.precision} export moves {report['labels_moved']:.1%} of the holdout's labels; "
                f"at most {MOST_LABELS_MOVED[manifest.precision]:.1%} is allowed. Calibrate on more texts."
            )
    else:
        cosines = (alone * expected).sum(1)
        report["mean_cosine"] = round(float(cosines.mean()), 5)
        report["min_cosine"] = round(float(cosines.min()), 5)
        if report["mean_cosine"] < LEAST_MEAN_COSINE:
            raise ParityError(f"The exported vectors stray from the checkpoint's: cosine {report['mean_cosine']}.")
    if report["max_batch_difference"] > MOST_BATCH_DIFFERENCE or report.get("labels_moved_by_batch"):
        raise ParityError(
            f"An answer depends on its batch-mates: scores move by {report['max_batch_difference']:.4f} "
            f"(at most {MOST_BATCH_DIFFERENCE}). Was the model quantized dynamically?"
        )
    return report


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


def scores(output: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
    """What clients see of an output: probabilities for a classifier, the vectors themselves for a ranker."""
    if kind == "ranker":
        return output
    exponent = np.exp(output - output.max(1, keepdims=True))
    probabilities: NDArray[np.float32] = exponent / exponent.sum(1, keepdims=True)
    return probabilities


def _torch_run(model: TextModel, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    ids, mask = pad(rows)
    with torch.no_grad():
        output: NDArray[np.float32] = model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    return output
