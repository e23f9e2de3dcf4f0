"""Redaction of personal data in every text, before the text is written to disk.

`redact` replaces it by `[email]`, `[phone]`, `[card]`, ...: what the engine of models/entities finds of the registry's
personal types.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from models.entities import Found, Registry, default_engine, engine_of, package_registry
from models.entities.engine import Engine

__all__ = ["KINDS", "Found", "Redactor", "find", "prepare", "redact", "redact_json"]

KINDS: tuple[str, ...] = tuple(one.name for one in package_registry().personal)
"""In order of rank: the first kind among overlapping matches is that of the placeholder."""

_PASSES = 6
_MAX_DEPTH = 100
_MAX_REMEMBERED, _MAX_REMEMBERED_LENGTH = 8192, 512  # strings, some MB of them at most, and characters of each


class Redactor:
    """Redacts with the types of one registry."""

    def __init__(self, engine: Engine):
        self.engine = engine
        # Keys and labels come again with every answer, and the items of a catalogue with every ranking.
        self._remembered = lru_cache(_MAX_REMEMBERED)(self._redacted)

    def redact(self, text: str) -> str:
        """The text with each match replaced by a placeholder such as `[email]`. Idempotent; never raises."""
        return self._remembered(text) if len(text) <= _MAX_REMEMBERED_LENGTH else self._redacted(text)

    def _redacted(self, text: str) -> str:
        if self.engine.is_harmless(text):
            return text
        for _ in range(_PASSES):
            found = self.engine.search_personal(text)
            if not found:
                return text
            text = self._replaced(text, found)
        # The rest beside a placeholder may match again, once or twice; more often only in a text made for it.
        return "[redacted]" if self.engine.search_personal(text) else text

    def redact_json(self, value: Any, max_length: int | None = None) -> Any:
        """A JSON value with every string in it redacted, including keys, and integers that are payment cards.

        Strings are cut to `max_length` characters first. Keys that become equal are numbered. Values nested deeper than
        100 become "[redacted]".
        """
        return self._redact_json(value, max_length, 0)

    def _redact_json(self, value: Any, max_length: int | None, depth: int) -> Any:
        if isinstance(value, str):
            return self.redact(value[:max_length])
        if isinstance(value, int):
            return "[card]" if self._is_card(value) else value
        if not isinstance(value, (dict, list, tuple)):
            return value
        if depth >= _MAX_DEPTH:
            return "[redacted]"
        if not isinstance(value, dict):
            return [self._redact_json(inner, max_length, depth + 1) for inner in value]
        out: dict[str, Any] = {}
        for key, inner in value.items():
            name = plain = self.redact(str(key))
            number = 1
            while name in out:
                number += 1
                name = f"{plain} {number}"
            out[name] = self._redact_json(inner, max_length, depth + 1)
        return out

    def _is_card(self, number: int) -> bool:
        return 10**11 <= number < 10**19 and any(one.kind == "card" for one in self.engine.personal(str(number)))

    def _replaced(self, text: str, found: list[Found]) -> str:
        parts: list[str] = []
        at = 0
        for one in found:
            parts += (text[at : one.start], self.engine.placeholder(one.kind))
            at = one.end
        return "".join((*parts, text[at:]))


@lru_cache(maxsize=4)
def redactor_of(registry: Registry) -> Redactor:
    """The redactor with the types of a deployment."""
    return Redactor(engine_of(registry))


_PACKAGE = redactor_of(package_registry())
redact = _PACKAGE.redact
redact_json = _PACKAGE.redact_json


def find(text: str) -> list[Found]:
    """The personal data in the text, in order, not overlapping."""
    return default_engine().personal(text)


def prepare() -> None:
    """Load the tables for names, phones and ids (9 MB, 0.2 s), so that no request waits for it."""
    redact("Ann, +44 7700 900123, 2125550175, DE89 3704 0044 0532 0130 00, 65 929 970 489, 39053344705, 54362315K")
