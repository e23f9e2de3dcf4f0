"""Normalization before matching: digits, dashes and spaces of every script to ASCII, invisible characters removed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# Thai to Lao, Myanmar, Khmer, kana, Han, Hangul.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_UNSPACED = re.compile(f"[{UNSPACED}]")
_PLAIN = re.compile(r"[\t\n\r\x20-\x7e]*\Z")
_KEEP = "\t\n\r"
_INVISIBLE = {"Cf", "Cc"}
_COMBINING = {0x20E3, *range(0x0300, 0x0370), *range(0xFE00, 0xFE10)}  # keycaps, accents, variation selectors


class _Table(dict[int, str | None]):
    """A table for `str.translate`: code point to one character, or None to remove it. Filled lazily."""

    def __missing__(self, code: int) -> str | None:
        self[code] = shown = _shown(chr(code))
        return shown


def _shown(char: str) -> str | None:
    category = unicodedata.category(char)
    if ord(char) in _COMBINING or (category in _INVISIBLE and char not in _KEEP):
        return None
    if category == "Cs":  # half a surrogate pair, which UTF-8 has not
        return "\N{REPLACEMENT CHARACTER}"
    digit = unicodedata.digit(char, -1)
    if digit >= 0:
        return str(digit)
    if category in ("Zs", "Zl", "Zp"):
        return " "
    if category == "Pd" or char == "\N{MINUS SIGN}":
        return "-"
    if char in "\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}":
        return "'"
    if char == "\N{IDEOGRAPHIC FULL STOP}":
        return "."
    compatible = unicodedata.normalize("NFKC", char)
    return compatible if len(compatible) == 1 and compatible.isascii() else char


_TABLE = _Table()


def is_unspaced(char: str) -> bool:
    """Whether it is of a script that puts no spaces between words."""
    return bool(_UNSPACED.match(char))


def spaced(text: str) -> str:
    """The text with a sign in place of each letter of a script without spaces: a number beside one stands alone."""
    return text if text.isascii() else _UNSPACED.sub("\N{IDEOGRAPHIC COMMA}", text)


def view(text: str) -> tuple[str, Sequence[int] | None]:
    """The text to search in, and for each of its characters the index in `text` (None: the same index)."""
    if _PLAIN.match(text):
        return text, None
    seen = text.translate(_TABLE)
    if len(seen) == len(text):
        return seen, None
    return seen, [index for index, char in enumerate(text) if _TABLE[ord(char)] is not None]
