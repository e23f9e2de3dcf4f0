"""Redaction of personal data in every text, before the text is written to disk.

`redact` replaces it by `[email]`, `[phone]`, `[card]`, ... Candidates are validated by a library where there is one
(python-stdnum, phonenumbers, ipaddress), else by the words around a number, so that an order number stays.
Every pattern takes linear time: no nested repetition of the same characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from models.feedback.pii.found import KINDS, Found, Kind
from models.feedback.pii.ids import lettered_ids, numeric_ids
from models.feedback.pii.mail import emails, is_spelled, logins, secrets, wallets
from models.feedback.pii.normal import spaced, view
from models.feedback.pii.numbers import accounts, addresses, cards, end_of_word, ibans, runs, without_keys
from models.feedback.pii.people import may_have_names, names
from models.feedback.pii.telephone import phones

__all__ = ["KINDS", "Found", "Kind", "find", "prepare", "redact", "redact_json"]

_PASSES = 6
_MAX_DEPTH = 100
_WORD = re.compile(r"[A-Za-z_]*\Z")
# ASCII without digits, the at-sign and opening brackets.
_NO_SIGNS = re.compile(r"[\t\n\r !-')-/:;=-?A-Z\\-z|-~]*\Z")
# These pre-checks begin with a digit, which the regex engine finds fastest.
_DIGIT = re.compile(r"\d")
_TWO_DIGITS = re.compile(r"\d[\s().:/-]{0,3}\d")
_IBAN_LIKE = re.compile(r"\d(?:(?<=[A-Za-z]{2}\d)|(?<=[A-Za-z]{2} \d))\d")
_LETTERED = re.compile(
    r"\d(?:\d\d[A-Za-z]|\d\d[ -][A-Za-z]\b|\d ?[A-Da-d]\b|\d[A-Za-z]\d\d|(?<=[A-Za-z]\d)\d{3}|\d{5}[-+])"
)
_LONG_WORD = re.compile(r"(?:0x|bc1|1|3)\w{20}")
_RANK = {kind: rank for rank, kind in enumerate(KINDS)}


def redact(text: str) -> str:
    """The text with each match replaced by a placeholder such as `[email]`. Idempotent; never raises."""
    if _is_harmless(text):
        return text
    for _ in range(_PASSES):
        found = _find(text)
        if not found:
            return text
        text = _replace(text, found)
    # The rest beside a placeholder may match again, once or twice; more often only in a text made for it.
    return "[redacted]" if _find(text) else text


_redact_key = lru_cache(1024)(redact)  # every answer has the same few keys


def prepare() -> None:
    """Load the tables for names, phones and ids (9 MB, 0.2 s), so that no request waits for it."""
    redact("Ann, +44 7700 900123, 2125550175, DE89 3704 0044 0532 0130 00, 65 929 970 489, 39053344705, 54362315K")


def find(text: str) -> list[Found]:
    """The personal data in the text, in order, not overlapping."""
    return [] if _is_harmless(text) else _find(text)


def _is_harmless(text: str) -> bool:
    """A quick check that no detector can match; False means that they must be run."""
    if _WORD.match(text) and "_at_" not in text.lower():  # such as most labels
        return True
    if not _NO_SIGNS.match(text) or "_" in text or "&" in text:
        return False
    return not is_spelled(text, only_words=True) and not may_have_names(text)


def _find(text: str) -> list[Found]:
    seen, index = view(text)
    found = _merge(sorted(_detect(seen), key=lambda one: one.start))
    if index is None:
        return found
    return [Found(one.kind, index[one.start], index[one.end - 1] + 1) for one in found]


def redact_json(value: Any, max_length: int | None = None) -> Any:
    """A JSON value with every string in it redacted, including keys, and integers that are payment cards.

    Strings are cut to `max_length` characters first. Keys that become equal are numbered. Values nested deeper than 100
    become "[redacted]".
    """
    return _redact_json(value, max_length, 0)


def _redact_json(value: Any, max_length: int | None, depth: int) -> Any:
    if isinstance(value, str):
        return redact(value[:max_length])
    if isinstance(value, int):
        return "[card]" if _is_card(value) else value
    if not isinstance(value, (dict, list, tuple)):
        return value
    if depth >= _MAX_DEPTH:
        return "[redacted]"
    if not isinstance(value, dict):
        return [_redact_json(inner, max_length, depth + 1) for inner in value]
    out: dict[str, Any] = {}
    for key, inner in value.items():
        name = plain = _redact_key(str(key))
        number = 1
        while name in out:
            number += 1
            name = f"{plain} {number}"
        out[name] = _redact_json(inner, max_length, depth + 1)
    return out


def _is_card(number: int) -> bool:
    return 10**11 <= number < 10**19 and any(one.kind == "card" for one in find(str(number)))


def _detect(text: str) -> Iterator[Found]:
    yield from emails(text)
    if may_have_names(text):
        yield from names(text)
    has_digit = _DIGIT.search(text)
    if has_digit or "_" in text:
        yield from logins(text)
    if not has_digit:
        return
    text = spaced(text)
    yield from secrets(text)
    if _LONG_WORD.search(text):
        yield from wallets(text)
    if not _TWO_DIGITS.search(text):
        return
    yield from addresses(text)
    if _IBAN_LIKE.search(text):
        yield from ibans(text)
    if _LETTERED.search(text):
        yield from lettered_ids(text)
    text = without_keys(text)
    for start, end, about in runs(text):
        yield from cards(text, start, end, about)
        around = max(0, start - 4), end_of_word(text, end)  # may include a plus sign or a letter
        yield from numeric_ids(text, *around, about)
        yield from phones(text, *around, about)
        yield from accounts(text, *around, about)


def _merge(found: list[Found]) -> list[Found]:
    """Merge overlapping matches into one of the highest-ranked kind. `found` is sorted by start."""
    merged: list[Found] = []
    for one in found:
        if merged and one.start < merged[-1].end:
            last = merged[-1]
            merged[-1] = Found(min(last.kind, one.kind, key=_RANK.__getitem__), last.start, max(last.end, one.end))
        else:
            merged.append(one)
    return merged


def _replace(text: str, found: list[Found]) -> str:
    parts: list[str] = []
    at = 0
    for one in found:
        parts += (text[at : one.start], f"[{one.kind}]")
        at = one.end
    return "".join((*parts, text[at:]))
