"""Text similarity: exact by normal form; near duplicates by MinHash candidates that rapidfuzz confirms."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray
from rapidfuzz import fuzz, process
from rapidfuzz.distance import OSA

_SHINGLE = 3
# The words are sorted, so the beginning is a fair sample of a long text; more costs time and finds no more.
_MAX_SHINGLED = 400
_PERMUTATIONS = 128
# 25 bands of 5: of the pairs with a similarity of 90 or more among 15,000 short questions, 99.8 % become candidates.
_BANDS = (25, 5)
# Near duplicates never have less Jaccard similarity than this; long texts of one domain often reach 0.3.
_MIN_JACCARD = 0.35
# Enough to find the best match; with a flood of one template, texts must not be compared with all others.
_MAX_COMPARED = 64
_SHORTEST_WITH_TYPO = 5


def differ_by_typos(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether the words are the same, in the same order, up to one typo in each word of five letters or more.

    Stricter than similarity on purpose: "profit rose to 5 mn" and "profit fell to 5 mn" are very similar, and must not
    count as a contradiction.
    """
    return len(one) == len(other) and all(
        a == b
        or (
            min(len(a), len(b)) >= _SHORTEST_WITH_TYPO
            and _cased(a)
            and _cased(b)
            and a[0] == b[0]  # unable is no typo of enable
            and OSA.distance(a, b, score_cutoff=1) == 1
        )
        for a, b in zip(one, other, strict=True)
    )


def _cased(word: str) -> bool:
    """Whether the script has case. In others (Chinese) a token is a sentence, and one character may be a negation."""
    return word.isalpha() and word != word.upper()


class Fingerprint(NamedTuple):
    key: str
    """the words, sorted"""
    minhash: MinHash


def fingerprints(texts: Iterable[Sequence[str]]) -> list[Fingerprint]:
    """One fingerprint for each text, given as its words."""
    keys = [" ".join(sorted(text)) for text in texts]
    hashes = MinHash.bulk([_shingles(key) for key in keys], num_perm=_PERMUTATIONS, hashfunc=zlib.crc32)
    return [Fingerprint(key, minhash) for key, minhash in zip(keys, hashes, strict=True)]


def _shingles(key: str) -> set[bytes]:
    head = key[:_MAX_SHINGLED]
    return {head[at : at + _SHINGLE].encode() for at in range(max(1, len(head) - _SHINGLE + 1))}


class SimilarityIndex:
    """An index of texts; `similar` finds near duplicates by token-sort ratio (0 to 100)."""

    def __init__(self, min_similarity: float) -> None:
        self._min_similarity = min_similarity
        self._lsh = MinHashLSH(num_perm=_PERMUTATIONS, params=_BANDS)
        self._known: list[Fingerprint] = []
        self._names: list[int] = []
        self._rows: NDArray[np.uint64] = np.empty((64, _PERMUTATIONS), np.uint64)

    def add(self, name: int, fingerprint: Fingerprint) -> None:
        at = len(self._known)
        if at == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[at] = fingerprint.minhash.hashvalues
        self._known.append(fingerprint)
        self._names.append(name)
        self._lsh.insert(at, fingerprint.minhash, check_duplication=False)

    def similar(self, fingerprint: Fingerprint) -> list[int]:
        """The names of the texts with at least `min_similarity`, nearest first, then in the order they were added."""
        found = np.array(sorted(self._lsh.query(fingerprint.minhash)), dtype=np.intp)
        if not found.size:
            return []
        shared = (self._rows[found] == fingerprint.minhash.hashvalues).mean(1)
        order = np.argsort(-shared, kind="stable")[:_MAX_COMPARED]
        likely = [int(at) for at in found[order[shared[order] >= _MIN_JACCARD]]]
        matches = process.extract(
            fingerprint.key,
            [self._known[at].key for at in likely],
            scorer=fuzz.ratio,  # of sorted words: the token-sort ratio
            score_cutoff=self._min_similarity,
            limit=None,
        )
        return [self._names[likely[position]] for _, _, position in matches]
