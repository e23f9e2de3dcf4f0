"""The split of a corpus without a `split` column into training rows and holdout."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

HOLDOUT_SHARE = 0.1
# With these an accuracy is known to within one point, and more only cost time: parity and evaluation run each of them.
MAX_HOLDOUT = 10_000

Keys = NDArray[np.uint64]


def text_key(text: str) -> int:
    """64 bits of a hash of the text, without case and repeated spaces, on which split and duplicates are decided."""
    # Not models.text.same_text_key: another key would change the split of files that versions were trained on.
    normal = " ".join(text.lower().split())
    return int.from_bytes(hashlib.sha256(normal.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def hold_out(keys: Keys, labels: NDArray[np.int32], fixed_train: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(rows,): whether each row is held out. `keys` are of `text_key`, `labels` numbers; both (rows,).

    About a tenth is, at most MAX_HOLDOUT rows, chosen by hash: the split survives reordering, and rows of one text stay
    on one side. A file that grows moves rows only out of the holdout, where it has MAX_HOLDOUT, and those of labels
    that had no other text. For every label keeps a text to train on, unless it is among `fixed_train`, the labels of
    rows that the file itself puts into the training part; and of a handful of rows one is held out, if each of its
    labels has another.
    """
    held = (keys >> np.uint64(32)) < np.uint64(HOLDOUT_SHARE * 2**32)
    if held.sum() > MAX_HOLDOUT:
        held = keys < np.partition(keys, MAX_HOLDOUT)[MAX_HOLDOUT]
    width = int(max(labels.max(initial=-1), fixed_train.max(initial=-1))) + 1
    outside = np.bincount(fixed_train, minlength=width)
    kept = outside + np.bincount(labels[~held], minlength=width)
    lacking = np.flatnonzero(held & (kept[labels] == 0))
    if lacking.size:
        order = lacking[np.lexsort((keys[lacking], labels[lacking]))]
        is_last = np.append(labels[order][1:] != labels[order][:-1], True)
        held &= ~np.isin(keys, keys[order[is_last]])
    if not held.any() and len(keys):
        held = _one_text(keys, labels, outside)
    return held


def _one_text(keys: Keys, labels: NDArray[np.int32], outside: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Hold out the text of the smallest hash of which every label has another text; none if there is no such text."""
    counts = outside + np.bincount(labels, minlength=len(outside))
    for key in np.unique(keys):
        held: NDArray[np.bool_] = keys == key
        if (counts - np.bincount(labels[held], minlength=len(counts)))[labels[held]].min() > 0:
            return held
    return np.zeros(len(keys), np.bool_)
