"""Commands of a page of documentation, with what it says that they print."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[-+]\d+)?")


@dataclass(frozen=True)
class Step:
    """The commands of a block, and the block that follows if it shows what they print."""

    commands: str
    printed: str = ""
    is_json: bool = False


def steps_of(text: str) -> list[Step]:
    """The blocks marked `bash` in order, each with the `json` or `text` behind it."""
    steps: list[Step] = []
    for kind, content in _FENCE.findall(text):
        if kind == "bash":
            steps.append(Step(content))
        elif kind in ("json", "text") and steps and not steps[-1].printed:
            steps[-1] = Step(steps[-1].commands, content, kind == "json")
    return steps


def sections_of(page: str) -> dict[str, str]:
    """The text of each second-level heading."""
    _, *parts = re.split(r"^## (.+)\n", page, flags=re.M)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def blocks_of(text: str, kind: str) -> list[str]:
    """The contents of the blocks of this kind (`sh`, `promql`, ...), in order."""
    return [content for found, content in _FENCE.findall(text) if found == kind]


def without_numbers(value: Any) -> Any:
    """An answer to compare: labels, ids and order are the same on every machine; the last digits of scores need not be.

    Nor need the word for a score near a bound.
    """
    if isinstance(value, dict):
        shown = {key: without_numbers(item) for key, item in value.items() if key != "top_k"}
        return shown | ({"confidence": None} if "confidence" in shown else {})
    if isinstance(value, list):
        return [without_numbers(item) for item in value]
    return None if isinstance(value, float) else value


def only_shown(answer: Any, shown: Any) -> Any:
    """The answer without fields that `shown`, the same answer on a page, leaves out."""
    if isinstance(answer, dict) and isinstance(shown, dict):
        return {key: only_shown(answer[key], shown[key]) for key in answer if key in shown}
    if isinstance(answer, list) and isinstance(shown, list) and len(answer) == len(shown):
        return [only_shown(*pair) for pair in zip(answer, shown, strict=True)]
    return answer


def masked(line: str) -> str:
    """A line without its numbers."""
    return _NUMBER.sub("0", line).strip()
