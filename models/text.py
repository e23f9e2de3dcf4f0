"""When two texts are the same one."""

from __future__ import annotations

import unicodedata


def same_text_key(text: str) -> str:
    """Equal for texts that a reader takes for the same one: case, width and white space do not matter.

    Keys of feedback are stored hashed with it, so it must not change: models/feedback/store/label_join.py.
    """
    return " ".join((text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold().split())
