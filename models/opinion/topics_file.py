"""Topics from a YAML file, checked whole; errors name the line and the remedy.

Either a list of `{name, aliases: [], keywords: []}`, or a mapping of names to lists of words. A word is plain text,
whatever YAML or a regular expression would make of it: `ON`, `2330` and `C++` are words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml

from models.opinion.topics import MAX_SERIES, OTHER, Topic, Topics, Word, word_forms
from models.text import label_fault, label_name, same_text_key
from models.yaml_files import compose, line_of

MAX_WORDS = 200_000  # of all topics: so many take about 160 MB in each replica
_NULL = "tag:yaml.org,2002:null"
_MAX_FAULTS = 10
_KEYS = ("name", "aliases", "keywords")
_KINDS: dict[str, Literal["alias", "keyword"]] = {"aliases": "alias", "keywords": "keyword"}


class TopicsError(Exception):
    """Raised when a file of topics cannot be used; the message names the file, the lines and the remedy."""


def read_topics(path: Path) -> Topics:
    """The topics of a file. Raises TopicsError, which lists up to ten faults, each with its line."""
    root = compose(path, TopicsError, "topics")
    if root is None:
        raise TopicsError(f"{path}: is empty. Give a list of topics, each with name and keywords.")
    reader = _Reader()
    topics = tuple(reader.topics(root))
    if not topics and not reader.faults:
        reader.fault(root, "there are no topics. Give a list of topics, each with name and keywords")
    if reader.faults:
        more = len(reader.faults) - _MAX_FAULTS
        shown = [f"{path}, line {line}: {sentence}." for line, sentence in sorted(reader.faults)[:_MAX_FAULTS]]
        raise TopicsError("\n".join([*shown, *([f"{path}: {more:,} more lines have faults."] if more > 0 else [])]))
    return Topics(topics, tuple(_notes(topics)))


class _Reader:
    """Walks the nodes; collects the faults as (line, sentence without its full stop)."""

    def __init__(self) -> None:
        self.faults: list[tuple[int, str]] = []
        self._lines: dict[str, int] = {}
        self._words = 0

    def fault(self, node: yaml.Node, sentence: str) -> None:
        self.faults.append((line_of(node), sentence))

    def topics(self, root: yaml.Node) -> Iterator[Topic]:
        if not isinstance(root, yaml.CollectionNode):
            self.fault(root, "a list of topics is expected, each with name and keywords")
            return
        for name_node, lists in self._entries(root):
            if (name := self._name(name_node)) is None:
                continue
            words = [word for key, kind in _KINDS.items() for word in self._list(lists.get(key), name, kind)]
            yield Topic(name, tuple(dict.fromkeys([Word(name.replace("_", " "), line_of(name_node), "name"), *words])))
            if self._words > MAX_WORDS:
                self.fault(name_node, f"there are more than {MAX_WORDS:,} words. Leave out those that never match")
                return

    def _entries(self, root: yaml.CollectionNode) -> Iterator[tuple[yaml.Node, dict[str, yaml.Node]]]:
        """(node of the name, lists of words) of each topic, in either form of the file."""
        if isinstance(root, yaml.MappingNode):
            for name, value in root.value:
                yield (
                    name,
                    self._fields(value, _KEYS[1:]) if isinstance(value, yaml.MappingNode) else {"keywords": value},
                )
            return
        for node in root.value:
            if not isinstance(node, yaml.MappingNode):
                self.fault(node, "a topic is a mapping with name, aliases and keywords")
                continue
            fields = self._fields(node, _KEYS)
            if (name := fields.pop("name", None)) is None:
                self.fault(node, "the topic has no name")
            else:
                yield name, fields

    def _fields(self, node: yaml.MappingNode, known: tuple[str, ...]) -> dict[str, yaml.Node]:
        fields: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if key.value not in known:
                self.fault(key, f"there is no key {_shown(key)}; a topic has {', '.join(known)}")
            elif key.value in fields:
                self.fault(key, f"{key.value} is given twice. Write one list")
            else:
                fields[key.value] = value
        return fields

    def _name(self, node: yaml.Node) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self.fault(node, "the name of a topic must be a text")
            return None
        name = label_name(node.value)
        key = same_text_key(name)
        if not any(map(str.isalnum, name)):
            self.fault(node, f"the topic {node.value!r:.40} has no name: a letter or a digit is needed")
        elif fault := label_fault(name) or _undecodable(name):
            self.fault(node, f"the name {name!r:.40} {fault}")
        elif key == OTHER:
            self.fault(node, f"{OTHER!r} is the topic of texts in which no topic is found. Choose another name")
        elif key in self._lines:
            self.fault(node, f"the topic {name!r} is in line {self._lines[key]} already (case aside). Join the two")
        else:
            self._lines[key] = line_of(node)
            return name
        return None

    def _list(self, node: yaml.Node | None, name: str, kind: Literal["alias", "keyword"]) -> Iterator[Word]:
        if node is None or node.tag == _NULL:
            return
        if not isinstance(node, yaml.SequenceNode | yaml.ScalarNode):
            self.fault(node, f"the words of {name!r} must be a list of texts")
            return
        for item in [node] if isinstance(node, yaml.ScalarNode) else node.value:
            self._words += 1
            if self._words > MAX_WORDS:
                return
            if not isinstance(item, yaml.ScalarNode):
                self.fault(item, f"a word of {name!r} must be a text. Put one with a colon or brackets in quotes")
                continue
            word = label_name(item.value)
            if not word or (item.tag == _NULL and word == "~"):
                self.fault(item, f"an empty {kind} of {name!r}, which would be in every text. Remove it")
            elif not any(map(str.isalnum, word)):
                self.fault(item, f"the {kind} {word!r:.40} of {name!r} has no letter and no digit. Remove it")
            elif fault := label_fault(word) or _undecodable(word):
                self.fault(item, f"the {kind} {word!r:.40} of {name!r} {fault}")
            else:
                yield Word(word, line_of(item), kind)


def _notes(topics: tuple[Topic, ...]) -> Iterator[str]:
    if len(topics) > MAX_SERIES:
        yield (
            f"There are {len(topics):,} topics, and metrics for the first {MAX_SERIES} of them; in metrics the others "
            f"count as {OTHER!r}. Trends have all."
        )
    owners: dict[str, dict[str, Word]] = defaultdict(dict)
    for topic in topics:
        for word in topic.words:
            owners[word_forms(word.text)[0]].setdefault(topic.name, word)
    for form, named in owners.items():
        if len(named) > 1:
            places = ", ".join(f"{name!r} (line {word.line})" for name, word in named.items())
            yield f"{form!r} is a word of {places}: a text with it has all of these topics."


def _undecodable(text: str) -> str | None:
    return "has half a surrogate pair, which is no character" if any("\ud800" <= c <= "\udfff" for c in text) else None


def _shown(node: Any) -> str:
    return f"{node.value!r:.40}" if isinstance(node, yaml.ScalarNode) else "that is a list or a mapping"
