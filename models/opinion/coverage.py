"""What the words of a file of topics catch in texts, for the person who writes the file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations

from models.opinion.topics import MAX_CHARACTERS, OTHER, Matcher, Word

_EXAMPLES = 3
_MAX_PAIRED = 20  # topics of one text whose pairs are counted


@dataclass
class Coverage:
    """Counts of texts. A text may have several topics."""

    texts: int = 0
    topics: Counter[str] = field(default_factory=Counter)
    """of each topic that was found, and of `other`"""
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    """that have both topics"""
    words: Counter[tuple[str, Word]] = field(default_factory=Counter)
    """in which a topic's word was found"""
    examples: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """the first texts of each topic, and of `other`"""


def coverage_of(matcher: Matcher, texts: Iterable[str]) -> Coverage:
    found = Coverage()
    for text in texts:
        words = matcher.words(text)
        names = list(dict.fromkeys(name for name, _ in words)) or [OTHER]
        found.texts += 1
        found.words.update(words)
        found.topics.update(names)
        found.pairs.update(combinations(sorted(names[:_MAX_PAIRED]), 2))
        for name in names:
            if len(examples := found.examples[name]) < _EXAMPLES:
                examples.append(text[:MAX_CHARACTERS])
    return found
