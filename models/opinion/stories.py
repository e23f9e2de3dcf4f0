"""Near copies: when two headlines are one story that several outlets print.

Copies differ at their ends (wire prefixes, outlets' names, cut words), in case, punctuation and units. Other news on
the same company differs in the middle, by a number, a name or a verb. So one text is a copy of another if its words are
those of the other with a few left out; a word or a number that was replaced makes another story, however similar the
rest is. MinHash finds the candidates, so that a text is not compared with a week of others.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple
from zlib import crc32

from models.text import words

BANDS, ROWS = 12, 3
"""of 36 hashes: a pair that shares 0.6 of its words becomes a candidate with probability 0.94, 0.1 of them with 0.01"""
MIN_SHARED = 0.65
"""share of the longer text's words that the shorter one has (docs/decisions/0045-opinion-store.md)"""
_MIN_WORDS = 4  # texts with fewer are copies only if they are equal
_MAX_WORDS = 64  # of a text, from its beginning; a headline has 12
_MAX_CHARACTERS = 1000
_SEED = 1  # changing it, or BANDS and ROWS, makes stored bands useless
_NUMBER, _SENSE, _HASH = 1 << 31, 1 << 30, (1 << 30) - 1

_WIRE_WORDS = "update|wrapup|refile|rpt|brief|correct(?:ed|ion)|exclusive|breaking(?: news)?|alert|flash|just in"
_WIRE_PREFIX = re.compile(
    rf"^(?:【[^】]{{1,8}}】|(?:(?:{_WIRE_WORDS})(?:[ -]?\d{{1,2}})?\s*[-:–—]+\s*))+", re.IGNORECASE
)
# What follows the last dash or bar is an outlet if it is short and has such a word; behind a bar, if it is short.
_OUTLET = re.compile(
    r"reuters|bloomberg|cnbc|associated press|marketwatch|insider|barron|\b(?:afp|ap|ft|wsj|bbc|cnn|dpa|news|times|post"
    r"|journal|herald|ledger|tribune|gazette|telegraph|guardian|press|wire|daily|finance|online|today|magazine|review)\b"
    r"|\.(?:com|co|net|org|de|cn)\b|新闻|财经|日报|网$",
    re.IGNORECASE,
)
_LAST_PART = re.compile(r"\s+([-–—|]|::)\s+([^|]{1,40})$|\s*\(([^()]{2,30})\)$")
_LINK_OR_TAG = re.compile(r"https?://\S+|[#$][A-Za-z]\w*")
_INITIALS = re.compile(r"\b(?:[A-Za-z]\.){2,}")
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_CJK = re.compile(f"[{_IDEOGRAPHS}]|[^{_IDEOGRAPHS}]+")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+")
_UNITS = {
    "percent": "%", "pct": "%", "billion": "bn", "bln": "bn", "million": "mn", "mln": "mn", "trillion": "tn",
    "trln": "tn", "trn": "tn",
}  # fmt: skip
_EMPTY_LIST = "a an the of in on at to for as and its it is are was were be by with from source report"
_EMPTY = frozenset(_EMPTY_LIST.split())
# A text that has one of these words more may say the opposite, or something new. Without their plural's s.
_SENSE_LIST = """
    not no never nor none against without less least fail failed deny denied denie reject rejected drop dropped halt
    halted cancel cancelled despite but although though unles cannot cant wont dont doesnt didnt isnt arent wasnt
    wouldnt miss missed missing former ex fall fell down up rise rose lower higher loss lose cut false fake untrue end
    ended close closed plan planned delay delayed may might could 不 没 未 无 非 否 跌 涨
"""
_SENSE_WORDS = frozenset(_SENSE_LIST.split())


class Sketch(NamedTuple):
    """What is kept of a text to find its copies."""

    words: array[int]
    """hashes of its words in order, four bytes each"""
    bands: tuple[int, ...]
    """BANDS signed 64-bit numbers, of which near copies have one in common, and one that only equal words have"""


def sketches(texts: Sequence[str]) -> list[Sketch]:
    """The sketch of each text. Loads numpy, scipy and datasketch when it is first called."""
    import numpy as np
    from datasketch import MinHash

    hashed = [_hashes(text) for text in texts]
    if not hashed:
        return []
    found = MinHash.bulk(hashed, num_perm=BANDS * ROWS, seed=_SEED, hashfunc=_itself)
    rows = np.array([minhash.hashvalues for minhash in found], np.uint64).reshape(-1, BANDS, ROWS)
    factors = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)  # any odd numbers
    bands = (rows * factors).sum(2, dtype=np.uint64) ^ (np.arange(1, BANDS + 1, dtype=np.uint64) * factors[0])
    bands ^= bands >> np.uint64(29)
    columns = bands.view(np.int64).tolist()
    return [_sketch(array("I", words), row) for words, row in zip(hashed, columns, strict=True)]


def _sketch(words: array[int], bands: list[int]) -> Sketch:
    of_all = int.from_bytes(blake2b(words.tobytes(), digest_size=8).digest(), "little", signed=True)
    return Sketch(words, (*bands, of_all))


def is_copy(one: array[int], other: array[int]) -> bool:
    """Whether two texts, given as `Sketch.words`, are one story."""
    shorter, longer = (one, other) if len(one) <= len(other) else (other, one)
    if len(shorter) < MIN_SHARED * len(longer):
        return False
    if one == other:
        return len(one) > 0
    if len(shorter) < _MIN_WORDS or (left := _left_out(shorter, longer)) is None:
        return False
    was_cut = longer[: len(shorter)] == shorter
    return not any(word & _SENSE or (word & _NUMBER and not was_cut) for word in left)


def _left_out(shorter: array[int], longer: array[int]) -> list[int] | None:
    """The words of `longer` that `shorter` does not have; None if `shorter` is not `longer` with words left out."""
    left: list[int] = []
    at, missing = 0, len(longer) - len(shorter)
    for word in longer:
        if at < len(shorter) and shorter[at] == word:
            at += 1
        else:
            left.append(word)
            if len(left) > missing:
                return None
    return left


def _itself(value: Any) -> Any:
    """The hash of a word, which is hashed already."""
    return value


def _hashes(text: str) -> list[int]:
    return [_hash(word) for word in islice(story_words(text), _MAX_WORDS)]


@lru_cache(maxsize=1 << 16)
def _hash(word: str) -> int:
    number = _NUMBER if any(character.isdigit() for character in word) else 0
    sense = _SENSE if word in _SENSE_WORDS else 0
    return (crc32(word.encode("utf-8", "surrogatepass")) & _HASH) | number | sense


def story_words(text: str) -> list[str]:
    """The words by which texts are compared: without what outlets add, units and numbers in one form."""
    core = _core(text)
    found: list[str] = []
    for word in words(core):
        found.extend(_CJK.findall(word) if not word.isascii() else [word])
    kept = [normal for word in found if (normal := _normal(word)) not in _EMPTY]
    return kept or found


def _core(text: str) -> str:
    """The text without wire prefixes, outlets, links, tags, and a word that was cut."""
    core = _WIRE_PREFIX.sub("", " ".join(_LINK_OR_TAG.sub(" ", text[:_MAX_CHARACTERS]).split()))
    for _ in range(3):
        part = _LAST_PART.search(core)
        if part is None or not _is_outlet(part):
            break
        core = core[: part.start()]
    if core.endswith(("…", "...")):
        core = core.rpartition(" ")[0]
    return _INITIALS.sub(lambda initials: initials.group().replace(".", ""), core) or text


def _is_outlet(part: re.Match[str]) -> bool:
    """Whether the last part of a text names who prints it."""
    name = part.group(2) or part.group(3)
    if len(name.split()) > 5 or any(character.isdigit() for character in name):
        return False
    return part.group(1) in ("|", "::") or _OUTLET.search(name) is not None


@lru_cache(maxsize=1 << 16)
def _normal(word: str) -> str:
    """A word's form: without plural, units by their sign, numbers without separators and trailing zeros."""
    if word[-1].isdigit() and not word.isalpha():
        number = word.replace(",", "") if _THOUSANDS.fullmatch(word) else word
        return number.rstrip("0").rstrip(".") if "." in number and number.replace(".", "", 1).isdecimal() else number
    if word in _UNITS:
        return _UNITS[word]
    return word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] != "s" else word
