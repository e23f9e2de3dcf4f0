"""The results of the engine."""

from __future__ import annotations

from typing import NamedTuple


class Found(NamedTuple):
    """Something of the type `kind` at `text[start:end]`.

    `value` is its normal form where a detector has one; None: the text itself.
    """

    kind: str
    start: int
    end: int
    value: str | None = None


class Entity(NamedTuple):
    """An entity at `text[start:end]`, offsets in characters (code points)."""

    type: str
    value: str
    """in its normal form, such as `EUR 12.50`, `2026-05-03`, `14:30`"""
    start: int
    end: int


class EntitiesError(Exception):
    """Raised when a registry of entities cannot be used; the message names the file, the place and the remedy."""
