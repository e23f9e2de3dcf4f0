"""The entries in memory, and the search for those whose question is near a text.

The index is exact: the product of all vectors with the text's. With 10,000 entries that takes half a millisecond, so
nothing is approximated. What is near enough: docs/decisions/0048-knowledge.md, measured by
loadtests/quality/knowledge.py.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.knowledge.types import Match, StoredEntry, primary_language

MIN_SIMILARITY = 0.535
"""of an entry that is offered as an answer"""
_DECIMALS = 4

Floats = NDArray[np.float32]


class Query(NamedTuple):
    """What is asked: the vector of a text and, if it is known, the language of the text (BCP 47)."""

    vector: Floats
    language: str | None = None


class KnowledgeIndex:
    """Some entries, searched together. Immutable: a change of the knowledge base is a new index.

    `vectors`: (entries, dimensions), of the entries' questions, each of unit length.
    """

    def __init__(self, entries: Sequence[StoredEntry], vectors: Floats):
        self.entries, self._vectors = tuple(entries), vectors
        self._languages = np.array([primary_language(entry.language) for entry in self.entries], np.str_)

    @classmethod
    def empty(cls) -> KnowledgeIndex:
        return cls((), np.zeros((0, 0), np.float32))

    def updated(
        self, kept: Collection[int], entries: Sequence[StoredEntry], vectors: Sequence[NDArray[np.floating]]
    ) -> KnowledgeIndex:
        """The index of those of its entries whose serials are `kept`, and of other ones with their vectors."""
        numbers = [i for i, entry in enumerate(self.entries) if entry.serial in kept]
        found = [*(self.entries[i] for i in numbers), *entries]
        parts = [part for part in (self._vectors[numbers], np.array(vectors, np.float32)) if len(part)]
        if not parts:
            return self.empty()
        # Sorted, so that the first of two equally near entries is the same one in all processes.
        order = sorted(range(len(found)), key=lambda i: found[i].id)
        return KnowledgeIndex([found[i] for i in order], np.concatenate(parts)[order])

    def search(self, query: Query, limit: int = 1, min_similarity: float = MIN_SIMILARITY) -> list[Match]:
        """The nearest entries of at least `min_similarity`; those of the text's language before all others."""
        if not self.entries:
            return []
        similarities: Floats = self._vectors @ query.vector
        if query.language is None:
            return self._best(similarities, limit, min_similarity)
        of_language = self._languages == primary_language(query.language)
        first = self._best(np.where(of_language, similarities, -np.inf), limit, min_similarity)
        rest = np.where(of_language, -np.inf, similarities)
        return first + self._best(rest, limit - len(first), min_similarity)

    def _best(self, similarities: Floats, limit: int, min_similarity: float) -> list[Match]:
        if limit == 1:
            best = [int(similarities.argmax())]
        else:
            best = (-similarities).argsort(kind="stable")[: max(limit, 0)].tolist()
        return [self._match(i, similarities[i]) for i in best if similarities[i] >= min_similarity]

    def _match(self, number: int, similarity: np.float32) -> Match:
        entry = self.entries[number]
        return Match(entry.id, entry.question, entry.answer, round(min(max(float(similarity), 0.0), 1.0), _DECIMALS))
