"""Texts to token ids, each text once: a text that comes again costs a look-up instead of the tokenizer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from cachetools import LRUCache

from export.tokenizer import Encoded, Ids, TextEncoder

_MOST_CHARACTERS_ON_LOOP = 50_000  # tokenizing more would hold up everybody else for tens of milliseconds
_MOST_KEPT = 1_000  # characters of a text that is remembered: the bound on the memory this takes
_CHARACTERS_A_TOKEN = 4  # roughly, in English; only for judging a text before it is tokenized


class RememberingEncoder:
    """`encoder` with the last `remember` texts kept; 0 keeps none. For one event loop."""

    def __init__(self, encoder: TextEncoder, max_length: int, remember: int):
        self._encoder = encoder
        self._max_length = max_length
        self._known: LRUCache[str, Encoded] = LRUCache(remember)

    def estimated_tokens(self, texts: Sequence[str], answered: Callable[[Ids], bool]) -> int:
        """Roughly the tokens of those texts that are not `answered`, which is asked of token ids, cheaply."""
        most, tokens = self._max_length, 0
        for text in texts:
            encoded = self._known.get(text)
            if encoded is None:
                tokens += min(len(text) // _CHARACTERS_A_TOKEN + 2, most)
            elif not answered(encoded.ids):  # whoever asked before left, or was too late
                tokens += len(encoded.ids)
        return tokens

    async def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """One `Encoded` a text, in order. Much text that is new is tokenized off the event loop."""
        known = [self._known.get(text) for text in texts]
        new = [text for text, encoded in zip(texts, known, strict=True) if encoded is None]
        if sum(map(len, new)) > _MOST_CHARACTERS_ON_LOOP:
            rest = await asyncio.to_thread(self._encoder.encode, new)
        else:
            rest = self._encoder.encode(new)
        if self._known.maxsize:
            self._known.update((t, encoded) for t, encoded in zip(new, rest, strict=True) if len(t) <= _MOST_KEPT)
        following = iter(rest)
        return [next(following) if encoded is None else encoded for encoded in known]
