"""Reads YAML files of a deployment: topics, entities, answers. Errors name the file, the line and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 16 * 2**20
_MAX_DEPTH = 16
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast


def compose(path: Path, error_of: type[Exception], what: str) -> yaml.Node | None:
    """The file's root node, None for an empty file. Nodes have lines, and the texts of scalars as they are written.

    `what` the file should be, such as "topics", for the sentences of `error_of`, which is raised.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise error_of(f"{path}: cannot be read: {error.strerror or error}.") from error
    if len(raw) > MAX_BYTES:
        raise error_of(f"{path}: is larger than {MAX_BYTES >> 20} MB. Is it a file of {what}?")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise error_of(
            f"{path}, line {line}: not UTF-8 (byte 0x{raw[error.start]:02x}). Save the file as UTF-8."
        ) from error
    try:
        if (deep := _too_deep(text)) is not None:
            raise error_of(f"{path}, line {deep}: is nested too deeply for a file of {what}.")
        root: yaml.Node | None = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise error_of(f"{where}: not valid YAML: {problem}. Put a text with special characters in quotes.") from error
    return root


def read(path: Path, error_of: type[Exception], what: str) -> dict[str, Any]:
    """The file's content, a mapping. Raises `error_of`, also for a key that is given twice."""
    root = compose(path, error_of, what)
    if not isinstance(root, yaml.MappingNode):
        raise error_of(f"{path}: keys with values are expected; see docs/customer-service.md for a file of {what}.")
    _refuse_twins(root, path, error_of)
    try:
        content: dict[str, Any] = yaml.constructor.SafeConstructor().construct_document(root)
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise error_of(f"{path}: not valid YAML: {' '.join(str(error).split())}.") from error
    return content


def line_of(node: yaml.Node | yaml.Event) -> int:
    return node.start_mark.line + 1 if node.start_mark is not None else 1


def _refuse_twins(root: yaml.Node, path: Path, error_of: type[Exception]) -> None:
    nodes, seen = [root], {id(root)}
    while nodes:
        node = nodes.pop()
        inner = node.value if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in keys:
                    raise error_of(f"{path}, line {line_of(key)}: {key.value!r:.60} is given twice. Join the two.")
                keys.add(key.value if isinstance(key, yaml.ScalarNode) else "")
                inner.append(value)
        for child in inner:  # an alias is the same node again
            if id(child) not in seen:
                seen.add(id(child))
                nodes.append(child)


def _too_deep(text: str) -> int | None:
    """The line in which lists are nested too deeply; libyaml's composer would crash on thousands."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                return line_of(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return None
