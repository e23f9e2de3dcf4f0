"""A cache before the tokenizer: a text that was seen before costs a look-up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from cachetools import LRUCache

from export.tokenizer import Encoded, Ids, TextEncoder

_MAX_CHARACTERS_ON_LOOP = 50_000  # tokenizing more would hold up everybody else for tens of milliseconds
_MAX_CACHED_CHARACTERS = 1_000  # of a cached text: bounds the memory
_CHARACTERS_A_TOKEN = 4  # roughly, in English; only for judging a text before it is tokenized


class CachingEncoder:
    """`encoder` behind an LRU cache of `cache_size` texts; 0 caches none. For one event loop."""

    def __init__(self, encoder: TextEncoder, max_length: int, cache_size: int):
        self._encoder = encoder
        self._max_length = max_length
        self._cache: LRUCache[str, Encoded] = LRUCache(cache_size)

    def estimated_tokens(self, texts: Sequence[str], is_cached: Callable[[Ids], bool]) -> int:
        """Roughly the tokens of the texts whose outputs are not cached; `is_cached` is asked of their token ids."""
        most, tokens = self._max_length, 0
        for text in texts:
            encoded = self._cache.get(text)
            if encoded is None:
                tokens += min(len(text) // _CHARACTERS_A_TOKEN + 2, most)
            elif not is_cached(encoded.ids):  # the request that brought it was abandoned
                tokens += len(encoded.ids)
        return tokens

    async def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """One `Encoded` a text, in order. Much text that is new is tokenized off the event loop."""
        cached = [self._cache.get(text) for text in texts]
        new = [text for text, encoded in zip(texts, cached, strict=True) if encoded is None]
        if sum(map(len, new)) > _MAX_CHARACTERS_ON_LOOP:
            rest = await asyncio.to_thread(self._encoder.encode, new)
        else:
            rest = self._encoder.encode(new)
        if self._cache.maxsize:
            self._cache.update(
                (t, encoded) for t, encoded in zip(new, rest, strict=True) if len(t) <= _MAX_CACHED_CHARACTERS
            )
        following = iter(rest)
        return [next(following) if encoded is None else encoded for encoded in cached]
