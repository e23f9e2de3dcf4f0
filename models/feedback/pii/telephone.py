"""Phone numbers: by pattern and the words around them, else by numbering plans (phonenumbers)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from models.feedback.pii.context import Topic, is_amount, named_a_phone_after
from models.feedback.pii.found import Found

_GAP = r"[\s().\-/]{0,3}"
_INTERNATIONAL = re.compile(rf"(?:(?<![\w+])\+|(?<![\d.,])00) ?\(?[1-9](?:{_GAP}\d){{6,16}}")
_ANY = re.compile(rf"(?<![\w.])\+?\(?\d(?:{_GAP}\d){{6,14}}(?!\d)")
_BARE = re.compile(r"(?<![\w.,])\d{10,12}(?![\w]|[.,]\d)")
_GROUPED = re.compile(
    r"(?<![\d+])(?:"
    r"(?:1[ .-]{1,2})?(?:\([2-9]\d{2}\)[ .-]{0,2}|[2-9]\d{2}[ .-]{1,2})\d{3}[ .-]{0,2}\d{4}"  # North America
    r"|(?P<zero>\(?0[1-9]\d{0,3}\)?(?:[ ./-]{1,3}\d{2,8}){1,5})"  # most of the world, trunk prefix 0
    r"|[6-9]\d{4}[ -]\d{5}"  # India
    r"|\(?[1-9]\d\)?[ -]?9?\d{4}-\d{4}"  # Brazil
    r"|1[3-9]\d[ -]\d{4}[ -]\d{4}"  # China
    r"|8[ -]?\(?9\d{2}\)?[ -]\d{3}[ -]?\d{2}[ -]?\d{2}"  # Russia
    r"|\(\d{2,5}\)[ -]?\d{3,4}[ -]?\d{3,5})(?!\d)"
)
_DATE = re.compile(
    r"(?<!\d)\d{1,2}([./-])\d{1,2} ?\1(?:19|20)?\d\d(?!\d)|(?<!\d)(?:19|20)\d\d([./-])\d\d?\2\d\d?(?!\d)"
)
_NATIONAL = {
    # number of digits in national format, trunk prefix included -> regions with numbers of that length
    10: ("US", "IN", "FR", "NL", "AU", "CH", "SE", "IT"),
    11: ("US", "GB", "DE", "JP", "CN", "BR", "IN"),
    12: ("DE",),
}


def phones(text: str, start: int, end: int, about: Topic | None) -> Iterator[Found]:
    """Phone numbers in `text[start:end]`, a run of digits and separators; `about` is the topic of the words before."""
    yield from _international(text, start, end)
    for match in _GROUPED.finditer(text, start, end):
        last = _end_of_groups(text, *match.span(), about) if match["zero"] else match.end()
        spaced = not match["zero"] and not set("(-/") & set(match[0])  # may be thousands separators
        if last and not (spaced and is_amount(text, match.start(), last)):
            yield Found("phone", match.start(), last)
    if about in (None, "phone"):
        for match in _BARE.finditer(text, start, end):
            if not is_amount(text, *match.span()) and _is_national(match[0]):
                yield Found("phone", *match.span())
    for match in _ANY.finditer(text, start, end):
        if (about == "phone" or named_a_phone_after(text, match.end())) and not _DATE.search(match[0]):
            yield Found("phone", *match.span())


def _international(text: str, start: int, end: int) -> Iterator[Found]:
    """Numbers with `+` or `00` and a country code, up to the longest length that the numbering plan has."""
    while match := _INTERNATIONAL.search(text, start, end):
        start = _end_of_plan(text, *match.span())
        yield Found("phone", match.start(), start)


def _end_of_plan(text: str, start: int, end: int) -> int:
    ends = [end, *(gap.start() + start for gap in reversed(list(re.finditer(r"(?<=\d)[\s().\-/]+", text[start:end]))))]
    for last in ends:
        digits = re.sub(r"\D", "", text[start:last]).removeprefix("00")
        if len(digits) < 7:
            break
        if any(len(digits) - code in _lengths(digits[:code]) for code in (1, 2, 3)):
            return last
    return end


def _end_of_groups(text: str, start: int, end: int, about: Topic | None) -> int | None:
    """The end of a number with a leading 0: 10 to 12 digits, or 9 after a word for phone. None: a date or too few."""
    if _DATE.match(text, start):
        return None
    min_digits = 9 if about == "phone" else 10
    while len(digits := re.sub(r"\D", "", text[start:end])) > 12:
        end = start + len(re.sub(r"[ ./-]+\d+\Z", "", text[start:end]))
    return end if len(digits) >= min_digits else None


def _is_national(digits: str) -> bool:
    """Whether it is a fixed or mobile number of some plan in national format, with its trunk prefix."""
    if len(set(digits)) <= 2:
        return False
    return any(_plan(region).fullmatch(_significant(digits, region)) for region in _NATIONAL[len(digits)])


def _significant(digits: str, region: str) -> str:
    if region == "IT":
        return digits
    if region in ("US", "CN", "BR"):
        return digits.removeprefix("1") if region == "US" and len(digits) == 11 else digits
    if region == "IN" and len(digits) == 10:
        return digits
    return digits[1:] if digits[0] == "0" else ""


@cache
def _plan(region: str) -> re.Pattern[str]:
    from phonenumbers import PhoneMetadata

    metadata: Any = PhoneMetadata.metadata_for_region(region)
    # In these countries almost any digits are a valid fixed line: only mobiles can be told from other numbers.
    kinds = [metadata.mobile] if region in ("IN", "CN", "BR", "IT", "DE") else [metadata.mobile, metadata.fixed_line]
    return re.compile("|".join(f"(?:{kind.national_number_pattern})" for kind in kinds))


@cache
def _lengths(code: str) -> frozenset[int]:
    """The possible lengths of numbers with this country code, without the code; with and without a trunk prefix."""
    from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

    lengths: set[int] = set()
    for region in COUNTRY_CODE_TO_REGION_CODE.get(int(code), ())[:1]:
        metadata = PhoneMetadata.metadata_for_region_or_calling_code(int(code), region)
        if metadata and metadata.general_desc:
            lengths.update(metadata.general_desc.possible_length)
    return frozenset(lengths | {length + 1 for length in lengths if code in ("44", "49", "33", "31", "61")})
