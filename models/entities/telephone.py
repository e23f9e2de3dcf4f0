"""Phone numbers: by pattern and the words around them, else by numbering plans (phonenumbers)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from models.entities.context import is_amount, named_a_phone_after
from models.entities.numbers import THINGS, end_of_word
from models.entities.scan import Scan
from models.entities.types import Found

_GAP = r"[\s().\-/]{0,3}"
_INTERNATIONAL = re.compile(
    rf"(?:(?<!\w)\+{{1,2}}|(?<![\w.,])(?<!\d-)(?<!\b\d )(?<!\b\d{{4}} )00) ?\(?[1-9](?:{_GAP}\d){{6,16}}"
)
_ANY = re.compile(rf"(?<![\w.])\+?\(?\d(?:{_GAP}\d){{6,14}}(?!\d)")
_BARE = re.compile(r"(?<![\w.,])\d{10,12}(?![\w]|[.,]\d)")
_GROUPED = re.compile(
    r"(?<![\w+])(?<!\d-)(?:"
    r"(?:1[ .-]{1,2})?(?:\([2-9]\d{2}\)[ .-]{0,2}|[2-9]\d{2}[ .-]{1,2})\d{3}[ .-]{0,2}\d{4}"  # North America
    r"|(?<!\s\d\d[ .-])0[1-9](?P<pair>[ .-])\d\d(?:(?P=pair)\d\d){3}"  # France
    r"|(?<!\d[./-])(?!(?:\d\d ){3}|(?<=\b\d{4} )\d{4} \d{4}\b)"  # neither pairs of digits nor a parcel's groups of four
    r"(?P<zero>\(?0[1-9]\d{0,5}\)?(?:[ ./-]{1,3}\d{2,8}){1,5})"  # most of the world, trunk prefix 0
    r"|[6-9]\d{4}[ -]\d{5}"  # India
    r"|\(?[1-9]\d\)?[ -]?9?\d{4}-\d{4}"  # Brazil
    r"|1[3-9]\d[ -]\d{4}[ -]\d{4}"  # China
    r"|8[ -]?\(?9\d{2}\)?[ -]\d{3}[ -]?\d{2}[ -]?\d{2}"  # Russia
    r"|\(\d{2,5}\)[ -]?\d{3,4}[ -]?\d{3,5})(?!-?\d|[A-Za-z])"
)
_FOUR_MORE = re.compile(r"[ -]\d{4}\b|-\d")
_MAX_DIGITS = 15  # of ITU-T E.164, with the country code
_DATE = re.compile(
    r"(?<!\d)\d{1,2}([./-])\d{1,2} ?\1(?:19|20)?\d\d(?!\d)|(?<!\d)(?:19|20)\d\d([./-])\d\d?\2\d\d?(?!\d)"
)
# Dates, years and decimals, though a word for a phone is near.
_NO_PHONE = re.compile(rf"{_DATE.pattern}|\b(?:19|20)\d\d ?[-/] ?(?:19|20)\d\d\b|\A\d{{1,3}}[.]\d\d?(?![.\d])")
_NATIONAL = {
    # number of digits in national format, trunk prefix included -> regions with numbers of that length
    10: ("US", "IN", "FR", "NL", "AU", "CH", "SE", "IT"),
    11: ("US", "GB", "DE", "JP", "CN", "BR", "IN"),
    12: ("DE",),
}


def phones(scan: Scan) -> Iterator[Found]:
    """Phone numbers in runs of digits and separators, by their shape, a numbering plan or the words before."""
    text = scan.unkeyed
    for start, end, about in scan.runs:
        # The run may have a plus sign before it.
        for one in _phones(text, max(0, start - 4), end_of_word(text, end), about):
            opened = text[one.start] == "(" and ")" not in text[one.start : one.end]  # (212-555-0175)
            yield one._replace(start=one.start + 1) if opened else one


def _phones(text: str, start: int, end: int, about: str | None) -> Iterator[Found]:
    yield from _international(text, start, end, about)
    for match in _GROUPED.finditer(text, start, end):
        last = _end_of_groups(text, *match.span(), about) if match["zero"] else match.end()
        spaced = not (match["zero"] or match["pair"]) and not set("(-/") & set(match[0])  # may be thousands separators
        if last and not (spaced and is_amount(text, match.start(), last)):
            yield Found("phone", match.start(), last)
    if about in (None, "phone"):
        for match in _BARE.finditer(text, start, end):
            if not is_amount(text, *match.span()) and _is_national(match[0]):
                yield Found("phone", *match.span())
    for match in _ANY.finditer(text, start, end):
        named = about == "phone" or named_a_phone_after(text, match.end())
        if named and not _NO_PHONE.search(match[0]) and not is_amount(text, *match.span()):
            yield Found("phone", *match.span())


def _international(text: str, start: int, end: int, about: str | None) -> Iterator[Found]:
    """Numbers with `+` or `00` and a country code, up to the longest length that the numbering plan has."""
    while match := _INTERNATIONAL.search(text, start, end):
        surely = match[0][0] == "+" or about == "phone"
        last = _end_of_plan(text, *match.span(), surely=surely)
        if last and (surely or not _is_reference(text, match.start(), last, about)):
            yield Found("phone", match.start(), last)
        start = last or match.end()


def _is_reference(text: str, start: int, end: int, about: str | None) -> bool:
    """Whether a number with 00 is rather a parcel's: after a word for one, or the first of many groups of four."""
    return (about in THINGS and text[start:end].isdigit()) or bool(_FOUR_MORE.match(text, end))


def _end_of_plan(text: str, start: int, end: int, *, surely: bool) -> int | None:
    """The end of a number within `text[start:end]`, after whole groups of digits.

    None when the plan has no number of that length. With `surely` it is one all the same, up to the 15 digits of E.164.
    """
    ends = [end, *(gap.start() + start for gap in reversed(list(re.finditer(r"(?<=\d)[\s().\-/]+", text[start:end]))))]
    longest = None
    for last in ends:
        if text[last : last + 1].isdigit():
            continue
        digits = re.sub(r"\D", "", text[start:last]).removeprefix("00")
        if len(digits) < 7:
            break
        if any(len(digits) - code in _lengths(digits[:code]) for code in (1, 2, 3)):
            return last
        if longest is None and len(digits) <= _MAX_DIGITS:
            longest = last
    return longest if surely else None


def _end_of_groups(text: str, start: int, end: int, about: str | None) -> int | None:
    """The end of a number with a leading 0: 10 to 12 digits, or 9 after a word for phone. None: a date or too few."""
    if _DATE.match(text, start):
        return None
    min_digits = 9 if about == "phone" else 10
    while len(digits := re.sub(r"\D", "", text[start:end])) > 12:
        end = start + len(re.sub(r"[ ./-]+\d+\Z", "", text[start:end]))
    if re.match(r"[./-]\d", text[end : end + 2]):
        return None
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
