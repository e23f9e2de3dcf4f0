"""A cache in front of the tokenizer: a repeated text costs a look-up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from cachetools import LRUCache

from export.tokenizer import Encoded, Ids, TextEncoder
from export.word_spans import Word, words_of

_MAX_CHARACTERS_ON_LOOP = 50_000  # tokenizing more would block the event loop for tens of milliseconds
_MAX_CACHED_CHARACTERS = 1_000  # longer texts are not cached, which bounds the memory
_CHARACTERS_PER_TOKEN = 4  # roughly, in English; for the estimate before a text is tokenized


def tokens_to_run(rows: Sequence[Ids], is_cached: Callable[[Ids], bool]) -> int:
    """Number of tokens the model has to run: those of rows for which `is_cached(ids)` is false."""
    return sum(len(ids) for ids in rows if not is_cached(ids))


class CachingEncoder:
    """`encoder` behind an LRU cache of `cache_size` texts; 0 disables it. For one event loop."""

    def __init__(self, encoder: TextEncoder, max_length: int, cache_size: int):
        self._encoder = encoder
        self._max_length = max_length
        self._cache: LRUCache[str, Encoded] = LRUCache(cache_size)

    def estimated_tokens(self, texts: Sequence[str], is_cached: Callable[[Ids], bool]) -> int:
        """Estimated number of tokens the model has to run: those of texts for which `is_cached(ids)` is false."""
        tokens = 0
        for text in texts:
            encoded = self._cache.get(text)
            if encoded is None:
                tokens += min(len(text) // _CHARACTERS_PER_TOKEN + 2, self._max_length)
            elif not is_cached(encoded.ids):  # the ids are cached, the output is not
                tokens += len(encoded.ids)
        return tokens

    async def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """One `Encoded` per text, in order. A large amount of new text is tokenized off the event loop."""
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

    async def words(self, texts: Sequence[str], max_words: int) -> list[list[Word]]:
        """The words of each text, as words_of gives them. Not cached."""
        if sum(map(len, texts)) > _MAX_CHARACTERS_ON_LOOP:
            return await asyncio.to_thread(self._divide, texts, max_words)
        return self._divide(texts, max_words)

    def _divide(self, texts: Sequence[str], max_words: int) -> list[list[Word]]:
        tokens = self._encoder.tokens(texts)
        return [words_of(text, found, max_words) for text, found in zip(texts, tokens, strict=True)]
