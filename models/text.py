"""Equality of texts."""

from __future__ import annotations

import unicodedata


def same_text_key(text: str) -> str:
    """A key that is equal for texts that differ only in case, character width or white space.

    Stored feedback keys are hashes of it, so it must not change: models/feedback/store/label_join.py.
    """
    return " ".join((text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold().split())
