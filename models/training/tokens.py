"""Token ids of a whole corpus in memory: 4 bytes a token, where Python's lists of integers take 36."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from export.checkpoint import text_encoder

_BATCH = 1000  # texts; the tokenizer's own result takes kilobytes a text

Ids = NDArray[np.int32]


class TokenRows(Sequence[Any]):  # of Ids, which are no Sequence[int] to mypy
    """The token ids of each text, (length,)."""

    def __init__(self, ids: Ids, ends: NDArray[np.int64]):
        self._ids, self._ends = ids, ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, i: int) -> Ids: ...
    @overload
    def __getitem__(self, i: slice) -> TokenRows: ...
    def __getitem__(self, i: int | slice) -> Ids | TokenRows:
        if isinstance(i, slice):
            raise TypeError("a corpus is read text by text")
        if not 0 <= i < len(self._ends):
            raise IndexError(i)
        return self._ids[self._ends[i - 1] if i else 0 : self._ends[i]]


class TokenizedExamples(torch.utils.data.Dataset[dict[str, Any]]):
    """Labelled texts as Hugging Face's `Trainer` reads them."""

    def __init__(self, rows: TokenRows, labels: torch.Tensor):
        self._rows, self._labels = rows, labels

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"input_ids": self._rows[i], "label": int(self._labels[i])}


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> TokenRows:
    """The ids of all texts, special tokens included, each cut to `max_length`."""
    encoder = text_encoder(tokenizer, max_length)
    ids, ends = array("i"), np.empty(len(texts), np.int64)
    for at in range(0, len(texts), _BATCH):
        for i, row in enumerate(encoder.encode(texts[at : at + _BATCH]), start=at):
            ids.extend(row.ids)
            ends[i] = len(ids)
    return TokenRows(np.frombuffer(ids, np.int32) if ids else np.zeros(0, np.int32), ends)
