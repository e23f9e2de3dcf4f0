"""Equality of texts, their words, and the one way to write a label."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

MAX_LABEL = 100  # characters; feedback takes no longer one: serve/feedback/intake.py

# Characters without width that copying from a page brings along; no label differs by them.
_DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_INVISIBLE = dict.fromkeys(map(ord, f"\u00ad\u200b\u2060\ufeff{_DIRECTIONS}"))
_SEPARATORS = str.maketrans("", "", "_-./ ")
_APOSTROPHES = re.compile(r"['’`´]")
# A number with its sign and decimals, a word, an emoticon, or any other visible character.
_TOKEN = re.compile(r"(?:(?<!\w)[-+])?\d+(?:[.,]\d+)*|[^\W_]+|[:;]-?[()]|[^\w\s]")


def same_text_key(text: str) -> str:
    """A key that is equal for texts that differ only in case, character width or white space.

    Stored feedback keys are hashes of it, so it must not change: models/feedback/store/label_join.py.
    """
    return " ".join((text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold().split())


@lru_cache(maxsize=1 << 16)
def words(text: str) -> tuple[str, ...]:
    """The text's words in order, without case, punctuation and spaces.

    Tokens that can change the meaning stay: signs and decimals of numbers, percent, currencies, emoticons and emoji. A
    text of punctuation only is returned as it is.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    found = tuple(token for token in _TOKEN.findall(_APOSTROPHES.sub("", folded)) if _carries_meaning(token))
    return found or tuple(folded.split())


def _carries_meaning(token: str) -> bool:
    return len(token) > 1 or token.isalnum() or token == "%" or unicodedata.category(token)[0] in "SM"


def label_name(label: str) -> str:
    """The label in Unicode's NFC, with single spaces and without invisible characters.

    `track`, `track ` and one with a no-break space are one label; `Track` is another one.
    """
    if not label.isascii():
        label = unicodedata.normalize("NFC", label.translate(_INVISIBLE))
    return " ".join(label.split())


def label_fault(label: str) -> str | None:
    """Why feedback could not name this label, as the end of a sentence; None when it could."""
    if len(label) > MAX_LABEL:
        return f"has {len(label)} characters; at most {MAX_LABEL} are allowed"
    if any(character < " " or character == "\x7f" for character in label):
        return "has a control character"
    return None


def label_likeness_key(label: str) -> str:
    """A key that is equal for labels that differ only in case, width, spaces, hyphens, underscores, dots, slashes."""
    return same_text_key(label).translate(_SEPARATORS) or label
