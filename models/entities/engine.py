"""The engine: finds entities of a registry's types in a text. Personal data is what it finds of the personal types.

Detectors and patterns are searched in a normalized view of the text (models/entities/normal.py); offsets are those of
the text itself. Every search takes linear time. An engine is immutable and thread-safe.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, get_args

from ahocorasick_rs import AhoCorasick, Implementation

from models.entities.context import Context
from models.entities.detectors import DETECTORS
from models.entities.mail import SPELLED_HINTS, emails, is_spelled
from models.entities.normal import view
from models.entities.patterns import Detector, detectors_of, own_detector
from models.entities.people import may_have_names
from models.entities.registry import EntityType, Gate, Registry
from models.entities.scan import Scan
from models.entities.types import Entity, Found
from models.entities.words import Words, folded

MAX_CHARACTERS = 4_000  # of a text in which entities are looked for: as many as the prediction log keeps

_WORD = re.compile(r"[A-Za-z_]*\Z")
# ASCII without digits, the at-sign and opening brackets.
_NO_SIGNS = re.compile(r"[\t\n\r !-')-/:;=-?A-Z\\-z|-~]*\Z")
_SIBILANT = ("s", "x", "z", "ch", "sh")


_HINT = "hint"
# Words without which a text of letters alone has no amount, time or address, as its detectors in words need them.
_HINTS = (
    *("euro", "euros", "dollar", "dollars", "bucks", "pound", "pounds", "quid", "yen", "francs"),
    *("o'clock", "half past", "half to", "quarter past", "quarter to"),
    *("at", "arroba", "arobase", "chiocciola", "malpa", "klammeraffe"),
)


class _Named(NamedTuple):
    """A word of a list: its type, and the name that it stands for (None: itself)."""

    type: str
    name: str | None
    ending: int = 0
    """characters of a plural ending, which are no part of it"""


class _Searches:
    """Detectors, each once, by what a text must have so that they can find anything."""

    def __init__(self, groups: Iterable[Iterable[Detector]], *, hints_need_sign: bool = False):
        """`hints_need_sign`: detectors with hints find nothing in a text without digit and underscore."""
        self._hints_need_sign = hints_need_sign
        detectors = dict.fromkeys(one for group in groups for one in group)
        by_gate = {gate: tuple(one.detect for one in detectors if one.needs == gate) for gate in get_args(Gate)}
        self._any, self._digit, self._hint = by_gate["any"], by_gate["digit"], by_gate["hint"]
        self._long_word, self._mixed = by_gate["long_word"], by_gate["mixed"]
        self._two_digits, self._numbers = by_gate["two_digits"], by_gate["numbers"]
        hints = sorted({hint.lower() for one in detectors for hint in one.hints})
        self._hints = AhoCorasick(hints, implementation=Implementation.ContiguousNFA) if hints else None

    def _has_hint(self, lowered: str) -> bool:
        return self._hints is not None and bool(self._hints.find_matches_as_indexes(lowered))

    def search(self, scan: Scan) -> list[Found]:
        """What they find, in no order."""
        found: list[Found] = []
        for detect in self._any:
            found += detect(scan)
        if (not self._hints_need_sign or scan.has_digit or "_" in scan.text) and self._has_hint(scan.lowered):
            for detect in self._hint:
                found += detect(scan)
        if not scan.has_digit:
            return found
        for detect in self._digit:
            found += detect(scan)
        if self._long_word and scan.has_long_word():
            for detect in self._long_word:
                found += detect(scan)
        if not scan.has_two_digits:
            return found
        for detect in self._two_digits:
            found += detect(scan)
        if self._mixed and scan.is_mixed():
            for detect in self._mixed:
                found += detect(scan)
        if self._numbers and scan.runs:
            for detect in self._numbers:
                found += detect(scan)
        return found


class Engine:
    """Finds entities of the registry's types."""

    def __init__(self, registry: Registry):
        self.registry = registry
        self._rank = {one.name: at for at, one in enumerate(registry.types)}
        self._placeholders = {one.name: one.placeholder for one in registry.types}
        self._own = own_detector(registry.types)
        self._context_words: Words[str] = Words((word, one.name) for one in registry.types for word in one.context)
        self._names: Words[_Named] = Words(_named_words(registry.types))
        found = {one.name: [*(DETECTORS[name] for name in one.detectors), *detectors_of(one)] for one in registry.types}
        self._personal = _Searches((found[one.name] for one in registry.personal), hints_need_sign=True)
        self._answered_names = frozenset(registry.answered)
        self._own_is_personal = any(one.personal for one in registry.types if one.extra or one.words)
        # Phone numbers are searched with the other personal data; addresses only where something is like one.
        light = [found[name] for name in registry.answered if name not in ("phone", "email")]
        if "email" in registry.answered:
            light.append([Detector(_mail, "hint", SPELLED_HINTS)])
        self._answered = _Searches(light)

    # Personal data

    def personal(self, text: str) -> list[Found]:
        """The personal data in the text, in order, not overlapping. Never raises."""
        return [] if self.is_harmless(text) else self.search_personal(text)

    def is_harmless(self, text: str) -> bool:
        """A quick check that no detector of personal data can match; False means that they must be run."""
        if self._own_is_personal:
            return False
        if _WORD.match(text) and "_at_" not in text.lower():  # such as most labels
            return True
        if not _NO_SIGNS.match(text) or "_" in text or "&" in text:
            return False
        return not is_spelled(text, only_words=True) and not may_have_names(text)

    def search_personal(self, text: str) -> list[Found]:
        """As `personal`, without the quick check."""
        seen, index = view(text)
        scan = self._scan(seen)
        found = self._personal.search(scan)
        if self._own_is_personal:
            found += (one for one in self._own_found(scan) if self._is_personal(one, seen))
        return _original(_merged(sorted(found, key=_start), self._rank), index)

    def _is_personal(self, one: Found, text: str) -> bool:
        """Whether it is of a personal type, and no placeholder: a word such as "customer" is in `[customer]`."""
        bracketed = text[one.start - 1 : one.start] == "[" and text[one.end : one.end + 1] == "]"
        return self.registry.types[self._rank[one.kind]].personal and not bracketed

    def placeholder(self, kind: str) -> str:
        """What replaces personal data of the type."""
        return self._placeholders[kind]

    # Entities

    def entities(self, text: str) -> list[Entity]:
        """The entities in the first 4,000 characters of the text, in order, not overlapping."""
        # Most texts have no digit or other sign, so that only words can be found: one pass says whether any is.
        plain = self._own is None and _NO_SIGNS.match(text) and "&" not in text and len(text) <= MAX_CHARACTERS
        return [] if plain and not self._names.find(text) else self.search_entities(text)

    def search_entities(self, text: str) -> list[Entity]:
        """As `entities`, without the quick check."""
        cut = len(text) > MAX_CHARACTERS
        seen, index = view(text[:MAX_CHARACTERS] if cut else text)
        scan = self._scan(seen)
        found = self._candidates(scan)
        if not found:
            return []
        chosen = _chosen(found, self._rank)
        if cut:  # what reaches the end may go on behind it
            chosen = [one for one in chosen if one.end < len(seen)]
        return [
            Entity(one.kind, seen[one.start : one.end] if one.value is None else one.value, *_place(one, index))
            for one in chosen
            if one.kind in self._answered_names
        ]

    def _candidates(self, scan: Scan) -> list[Found]:
        found = list(self._own_found(scan))
        found += self._answered.search(scan)
        if scan.has_two_digits and scan.runs:  # then all personal data, since what is a card's number is no order's
            found += (_with_value(one, scan.text) for one in self._personal.search(scan))
        return found

    def _own_found(self, scan: Scan) -> Iterator[Found]:
        """Words of lists, and the patterns of the deployment."""
        reached = -1
        for hit in self._names.find(scan.text):
            if hit.start >= reached and hit.of.type != _HINT:
                reached = hit.end
                if hit.of.type:
                    end = hit.end - hit.of.ending
                    shown = scan.text[hit.start : end].lower() if hit.of.name is None else hit.of.name
                    yield Found(hit.of.type, hit.start, end, shown)
        if self._own is not None:
            yield from self._own(scan)

    def _scan(self, text: str) -> Scan:
        return Scan(text, self._context, day_first=self.registry.day_first)

    def _context(self, text: str) -> Context:
        return Context(text, self._context_words.find(text))


@lru_cache(maxsize=4)
def shared_engine(registry: Registry) -> Engine:
    return Engine(registry)


def _named_words(types: Iterable[EntityType]) -> Iterator[tuple[str, _Named]]:
    for one in types:
        for word in one.words:
            for form in (word.name, *word.aliases):
                yield form, _Named(one.name, word.name)
                if ending := _plural_ending(form):
                    yield form + ending, _Named(one.name, word.name, len(ending))
        for form, value in one.moments.items():
            yield form, _Named(one.name, value)
        for form in one.unless:
            yield form, _Named("", None)
    for form in _HINTS:
        yield form, _Named(_HINT, None)


def _plural_ending(form: str) -> str:
    """The ending of its English plural; empty for a form that does not end with a letter of ASCII."""
    last = folded(form)[-1:]
    if form.endswith("*") or not (last.isascii() and last.isalpha()):
        return ""
    return "es" if form.lower().endswith(_SIBILANT) else "s"


def _mail(scan: Scan) -> Iterator[Found]:
    for one in emails(scan):
        yield _with_value(one, scan.text)


def _with_value(found: Found, text: str) -> Found:
    """Phone numbers as their digits with the plus sign, addresses in lower case."""
    shown = text[found.start : found.end]
    if found.kind == "phone":
        shown = shown.replace("(0)", "")  # +44 (0)20
        return found._replace(value=("+" if shown.startswith("+") else "") + re.sub(r"\D", "", shown))
    return found._replace(value=shown.lower()) if found.kind == "email" else found


def _start(found: Found) -> int:
    return found.start


def _merged(found: list[Found], rank: dict[str, int]) -> list[Found]:
    """Merge overlapping matches into one of the highest-ranked kind. `found` is sorted by start."""
    merged: list[Found] = []
    for one in found:
        if merged and one.start < merged[-1].end:
            last = merged[-1]
            kind = min(last.kind, one.kind, key=rank.__getitem__)
            merged[-1] = Found(kind, last.start, max(last.end, one.end))
        else:
            merged.append(one)
    return merged


def _chosen(found: list[Found], rank: dict[str, int]) -> list[Found]:
    """Of overlapping matches the longest, and of equally long ones that of the highest rank; in order."""
    if len(found) == 1:
        return found
    chosen: list[Found] = []
    taken = bytearray(max(one.end for one in found))
    for one in sorted(found, key=lambda one: (one.start - one.end, rank[one.kind], one.start)):
        if taken.find(1, one.start, one.end) < 0:
            taken[one.start : one.end] = b"\1" * (one.end - one.start)
            chosen.append(one)
    return sorted(chosen, key=_start)


def _place(found: Found, index: Sequence[int] | None) -> tuple[int, int]:
    if index is None:
        return found.start, found.end
    return index[found.start], index[found.end - 1] + 1


def _original(found: list[Found], index: Sequence[int] | None) -> list[Found]:
    return found if index is None else [Found(one.kind, *_place(one, index)) for one in found]
