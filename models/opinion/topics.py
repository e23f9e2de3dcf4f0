"""Topics of a text, by lists of words: an Aho-Corasick automaton finds all words of all topics in one pass.

A word is found whatever its case, width and spacing, as a whole word, in the singular or the plural, and before `'s`.
In scripts that put no spaces between words (Chinese, Japanese, Korean, Thai and their neighbours) it is found anywhere.
Where a word stands inside a longer one of the lists, only the longer one counts: `central bank` is no `bank`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

from ahocorasick_rs import AhoCorasick, Implementation, MatchKind

from models.text import same_text_key

OTHER = "other"
"""the topic of texts in which no other is found"""
MAX_SERIES = 200
"""the first topics of a file have metrics of their own; a label for each of thousands would overload Prometheus"""
MAX_CHARACTERS = 4_000  # of a text that are searched: as many as the prediction log keeps, six times what a model reads

# Scripts without spaces between words; and Hangul, whose particles follow the noun without one.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff]"
)
_MIN_PLURAL = 3  # letters; shorter words have plurals that are other words: us, uses; it, its
_SIBILANT = ("s", "x", "z", "ch", "sh")
_VOWELS = "aeiou"
# The many apostrophes and hyphens of pages and posts. What has no width is left out, and so are the marks that make an
# emoji of a sign: combining marks join the word beside them.
_PLAIN = (
    dict.fromkeys("\u00b4\u2018\u2019\u02bc", "'")
    | dict.fromkeys("\u2010\u2011\u2013\u2212", "-")
    | dict.fromkeys("\u00ad\u200b\u2060\ufe0e\ufe0f\ufeff\u20e3", "")
)
_NOT_PLAIN = re.compile(f"[{''.join(_PLAIN)}]")


class Word(NamedTuple):
    """A word or phrase of a topic, as it is written in the file, and its line there."""

    text: str
    line: int
    kind: Literal["name", "alias", "keyword"]


class Topic(NamedTuple):
    name: str
    words: tuple[Word, ...]
    """the name first, then its aliases and keywords"""


@dataclass(frozen=True)
class Topics:
    """The topics of a file, in its order. Instances are valid: models/opinion/topics_file.py makes them."""

    topics: tuple[Topic, ...]
    notes: tuple[str, ...] = ()
    """what is odd in the file, as sentences"""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(topic.name for topic in self.topics)

    @cached_property
    def _by_alias(self) -> Mapping[str, str]:
        named = [(word.text, topic.name) for topic in self.topics for word in topic.words if word.kind != "keyword"]
        # Reversed, so that the first of two topics with one alias has it; and no alias replaces a name.
        names = [*((topic.name, topic.name) for topic in self.topics), (OTHER, OTHER)]
        return {same_text_key(alias): name for alias, name in (*reversed(named), *names)}

    def canonical(self, name: str) -> str:
        """The topic that has this name or alias, whatever its case; else the name itself, which needs no entry."""
        return self._by_alias.get(same_text_key(name), name)


class Matcher:
    """Finds topics in texts. Thread-safe."""

    def __init__(self, topics: Topics):
        patterns: dict[str, list[tuple[str, Word]]] = {}
        for topic in topics.topics:
            for word in topic.words:
                for form in word_forms(word.text):
                    patterns.setdefault(form, []).append((topic.name, word))
        self._found = [tuple(owners) for owners in patterns.values()]
        # Whether a letter beside the first or last character would make it a part of another word.
        self._edges = [(_joins(form[0]), _joins(form[-1])) for form in patterns]
        # Of the crate's three kinds the one that is small and fast: docs/decisions/0043-topics.md.
        self._automaton = AhoCorasick(
            patterns, matchkind=MatchKind.Standard, implementation=Implementation.ContiguousNFA
        )

    def topics(self, text: str) -> list[str]:
        """The names of the topics found in the text, in the order of their first word there; may be empty."""
        names = (name for at in self._matches(text) for name, _ in self._found[at])
        return list(dict.fromkeys(names))

    def words(self, text: str) -> list[tuple[str, Word]]:
        """(name of a topic, word of it), for each word that is found in the text."""
        return list(dict.fromkeys(found for at in self._matches(text) for found in self._found[at]))

    def _matches(self, text: str) -> Iterator[int]:
        """The numbers of the forms that stand in the text as whole words and not inside a longer one, in order."""
        key = _searchable(text[:MAX_CHARACTERS])
        spans = [
            (start, -end, at)
            for at, start, end in self._automaton.find_matches_as_indexes(key, overlapping=True)
            if not (
                (self._edges[at][0] and start and _joins(key[start - 1]))
                or (self._edges[at][1] and end < len(key) and _joins(key[end]))
            )
        ]
        reached = 0
        for _, end, at in sorted(spans) if len(spans) > 1 else spans:
            if -end > reached:
                reached = -end
                yield at


@lru_cache(maxsize=1)
def matcher_of(topics: Topics) -> Matcher:
    """The matcher, which all versions of a task in a process share."""
    return Matcher(topics)


def word_forms(word: str) -> list[str]:
    """The forms in which a word is searched: itself, and its English plurals if it ends with a letter of ASCII."""
    form = _searchable(word)
    letters = len(form) - len(form.rstrip("abcdefghijklmnopqrstuvwxyz"))
    if letters < _MIN_PLURAL:
        return [form]
    if form.endswith(_SIBILANT):
        return [form, f"{form}es"]
    if form.endswith("o"):
        return [form, f"{form}s", f"{form}es"]
    if form.endswith("y") and form[-2] not in _VOWELS:
        return [form, f"{form[:-1]}ies", f"{form}s"]
    return [form, f"{form}s"]


def _searchable(text: str) -> str:
    """The text as it is compared: models.text.same_text_key, with one kind of apostrophe and of hyphen."""
    return same_text_key(text if text.isascii() else _NOT_PLAIN.sub(lambda found: _PLAIN[found[0]], text))


@lru_cache(maxsize=4096)
def _joins(character: str) -> bool:
    """Whether it is part of the word beside it: letters, digits and their marks, in scripts with spaces."""
    if character.isascii():
        return character.isalnum()
    part = character.isalnum() or unicodedata.category(character).startswith("M")
    return part and not _UNSPACED.match(character)
