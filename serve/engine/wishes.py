"""Several wishes in one text: reads the clauses of those texts that have more than one.

The encoder's outputs of clauses are not cached beside those of texts: a clause may be a text that a client sends too,
and that the linear reader answers. What was found in a text is cached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from export.heads import softmax
from export.model import Model
from export.tokenizer import Ids
from models.tasks.base import Prediction
from models.tasks.clauses import Span, may_have_clauses, split_clauses
from models.tasks.wishes import Reading, Wish, WishRule
from serve.engine.batcher import Batcher
from serve.engine.token_cache import CachingEncoder

_MAX_TOKENS_ON_LOOP = 10_000  # reading more would block the event loop for more than some milliseconds
_MAX_CACHED_CHARACTERS = 1_000  # longer texts are not cached, which bounds the memory


class _Divided(NamedTuple):
    """A text of the request with several clauses: its index, and their token ids."""

    text: int
    spans: Sequence[Span]
    rows: Sequence[Ids]


class WishReader:
    """Finds the wishes in texts, for one version. `cache_size` is the number of texts whose wishes are kept."""

    def __init__(self, rule: WishRule, model: Model, encoder: CachingEncoder, batcher: Batcher, cache_size: int):
        if model.readers is None:
            raise ValueError("clauses are read by a linear reader first")
        self.rule, self.batcher = rule, batcher
        self._readers, self._has_encoder, self._encoder = model.readers, model.session is not None, encoder
        self._labels = len(model.bundle.manifest.labels)
        self._known: LRUCache[str, Sequence[Wish]] = LRUCache(cache_size)

    @staticmethod
    def joined(texts: Sequence[str]) -> list[int]:
        """The indexes of the texts that may have several wishes: few, as a rule."""
        return [i for i, text in enumerate(texts) if may_have_clauses(text)]

    async def begin(self, texts: Sequence[str], joined: Sequence[int]) -> Wishes:
        """The wishes of those of a request's `texts` that may have several, as far as the linear reader finds them."""
        wishes = Wishes(self, texts)
        divided: list[tuple[int, list[Span]]] = []
        for i in joined:
            if (known := self._known.get(texts[i])) is not None:
                wishes.keep(i, known)
            elif spans := split_clauses(texts[i]):
                divided.append((i, spans))
        if divided:
            encoded = iter(
                await self._encoder.encode([texts[i][s.start : s.end] for i, spans in divided for s in spans])
            )
            read = [_Divided(i, spans, [next(encoded).ids for _ in spans]) for i, spans in divided]
            if sum(len(ids) for one in read for ids in one.rows) > _MAX_TOKENS_ON_LOOP:
                readings = await asyncio.to_thread(self._read, read)
            else:
                readings = self._read(read)
            for one, reading in zip(read, readings, strict=True):
                wishes.add(one, reading)
        return wishes

    def remember(self, text: str, wishes: Sequence[Wish]) -> None:
        if self._known.maxsize and len(text) <= _MAX_CACHED_CHARACTERS:
            self._known[text] = wishes

    def probabilities(self, activated: NDArray[np.float32]) -> NDArray[np.float32]:
        """(clauses, labels), from the task's activated outputs."""
        return activated[:, : self._labels]

    def _read(self, divided: Sequence[_Divided]) -> list[Reading]:
        factor = np.float32(self._readers.blend.linear_alone)
        readings = []
        for one in divided:
            logits = np.stack([self._readers.linear.read(ids).logits for ids in one.rows])
            reading = self.rule.of_linear(one.spans, softmax(logits * factor))
            readings.append(reading if self._has_encoder else reading._replace(unread=()))
        return readings


class Wishes:
    """The wishes of one request's texts. `rows` are token ids of clauses that the encoder still has to read."""

    def __init__(self, reader: WishReader, texts: Sequence[str]):
        self._reader, self._texts = reader, texts
        self._found: dict[int, Sequence[Wish]] = {}
        self._open: list[tuple[_Divided, Reading]] = []
        self.rows: list[Ids] = []

    def keep(self, text: int, wishes: Sequence[Wish]) -> None:
        self._found[text] = wishes

    def add(self, divided: _Divided, reading: Reading) -> None:
        if reading.unread:
            self._open.append((divided, reading))
            self.rows += [divided.rows[i] for i in reading.unread]
        else:
            self._finish(divided.text, reading.sure)

    async def read(self, deadline: float, disconnected: Callable[[], bool] = bool) -> None:
        """Let the encoder read `rows`. Raises what Batcher.submit does."""
        output = await self._reader.batcher.submit(self.rows, deadline, disconnected, cached=False)
        probabilities, at = self._reader.probabilities(output), 0
        for divided, reading in self._open:
            spans = [divided.spans[i] for i in reading.unread]
            more = self._reader.rule.of_both(spans, probabilities[at : at + len(spans)])
            at += len(spans)
            self._finish(divided.text, [*reading.sure, *more])

    def add_to(self, predictions: Sequence[Prediction], output: NDArray[np.float32]) -> None:
        """Give the predictions of texts with several wishes their `intents`. They were decoded from `output`."""
        whole = self._reader.probabilities(output)
        for text, wishes in self._found.items():
            if len(wishes) > 1 and (intents := self._reader.rule.intents(wishes, whole[text])):
                predictions[text]["intents"] = intents

    def _finish(self, text: int, wishes: Sequence[Wish]) -> None:
        self._reader.remember(self._texts[text], wishes)
        self.keep(text, wishes)
