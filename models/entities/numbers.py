"""Payment cards, IBANs, IP addresses: numbers validated by checksum or range."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from functools import cache

from models.entities.scan import Scan
from models.entities.types import Found

THINGS = frozenset({"reference", "order_id", "invoice_id"})
"""types whose numbers belong to things; behind their words a checksum or a numbering plan says less"""
_GROUP = re.compile(r"\d+")
_CARD = re.compile(
    r"4(?:\d{15}|\d{18})"  # Visa
    r"|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|2720\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-59]|[689]\d)\d{11,16}"  # Diners Club
    r"|(?:352[89]|35[3-8]\d)\d{12,15}"  # JCB
    r"|6(?:011|5\d\d|4[4-9]\d|2\d\d)\d{12,15}"  # Discover, UnionPay
    r"|(?:5[06789]|6[0-9])\d{12,17}"  # Maestro, RuPay, Elo
)
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_IBAN_LIKE = re.compile(r"\d(?:(?<=[A-Za-z]{2}\d)|(?<=[A-Za-z]{2} \d))\d")
_IBAN = re.compile(r"(?<![A-Za-z0-9])(?:[A-Za-z]{2}\d{2}(?=[ -]?[A-Za-z0-9]{3})|[A-Z]{2} \d{2}(?= [A-Z0-9]{4} ))")
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)")
_VERSION_BEFORE = re.compile(
    r"(?:\b(?:ver(?:sion)?|release|firmware|build|update|driver|app|ios|android|paragraph|section|chapter|clause)|§)"
    r"[.:#]?(?: is| of| no\.?)?\s{0,2}v?\Z",
    re.I,
)
_IPV6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:)[0-9A-Fa-f:.]{6,45}(?!\w)")
_MAC = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![\w:])")


def end_of_word(text: str, end: int) -> int:
    """Two characters after `end`, which may be letters of the number; further if they are the beginning of a word.

    A pattern that is searched up to here sees the end of the word, not of what it may search.
    """
    end, limit = min(len(text), end + 2), min(len(text), end + 32)
    while end < limit and text[end - 1].isalnum() and text[end].isalnum():
        end += 1
    return end


def cards(scan: Scan) -> Iterator[Found]:
    """Adjacent groups of digits with 14 to 19 digits of a known issuer that pass Luhn.

    After words for a card also those of 13 digits and those that fail: a number with a typo is just as private.
    """
    for run in scan.runs:
        yield from _cards(scan.unkeyed, *run)


def _cards(text: str, start: int, end: int, about: str | None) -> Iterator[Found]:
    groups = [match.span() for match in _GROUP.finditer(text, start, end)]
    for first, (begin, _) in enumerate(groups):
        if text[begin] not in "23456" and about != "card":
            continue
        digits, between, sizes = "", set[str](), set[int]()
        for index in range(first, min(first + 19, len(groups))):
            if index > first:
                gap = text[groups[index - 1][1] : groups[index][0]]
                between.update(gap.replace("\n", " "))
                # Points and slashes separate all groups or none; else they belong to an IP address or a price.
                if len(gap) > 3 or (between & set("./()") and len(between) > 1):
                    break
            group = text[slice(*groups[index])]
            digits += group
            sizes.add(len(group))
            if len(digits) > 19:
                break
            # Single digits only if all groups are. Groups of seven and more are those of orders' numbers.
            printed = index == first or sizes in ({1}, {8}) or all(1 < size < 7 for size in sizes)
            if len(digits) < 13 or not printed:
                continue
            if about == "card" or (_is_card(digits) and not _is_article(group, about)):
                yield Found("card", begin, groups[index][1])


def _is_article(group: str, about: str | None) -> bool:
    """Whether a card of 14 digits in one group is as well a parcel's number or a GTIN-14."""
    if len(group) != 14:
        return False
    return about in THINGS or (3 * sum(map(int, group[::2])) + sum(map(int, group[1::2]))) % 10 == 0


def _is_card(digits: str) -> bool:
    return bool(_CARD.fullmatch(digits)) and _luhn(digits)


def _luhn(digits: str) -> bool:
    """The Luhn checksum, ISO/IEC 7812-1. It runs on every window; python-stdnum takes ten times as long."""
    values = [int(digit) for digit in reversed(digits)]
    return (sum(values[::2]) + sum(_DOUBLED[value] for value in values[1::2])) % 10 == 0


def ibans(scan: Scan) -> Iterator[Found]:
    """IBANs (ISO 13616), with or without spaces, by length and checksum; after the word IBAN, by length alone."""
    if not _IBAN_LIKE.search(scan.spaced):
        return
    text, start = scan.spaced, 0
    while begin := _IBAN.search(text, start):
        stop = _end_of_iban(scan, begin.start())
        if stop:
            yield Found("iban", begin.start(), stop)
        start = stop or begin.end()


def _end_of_iban(scan: Scan, start: int) -> int | None:
    text = scan.spaced
    length = _length_of_iban(text[start : start + 2].upper())
    number = _of_length(length).match(text, start) if length else None
    if not number:
        return None
    compact = re.sub("[ -]", "", number[0]).upper()
    value = int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4]))
    named = not text[number.end() : number.end() + 1].isalpha() and scan.context.topic(start) == "iban"
    return number.end() if value % 97 == 1 or named else None


@cache
def _of_length(length: int) -> re.Pattern[str]:
    return re.compile(rf"[A-Za-z0-9](?:[ -]?[A-Za-z0-9]){{{length - 1}}}(?:(?![A-Za-z0-9])|(?<=\d)(?=[A-Z][^\W\dA-Z]))")


@cache
def _length_of_iban(country: str) -> int:
    """The length of the country's IBANs, from python-stdnum's registry; 0 if it has none."""
    from stdnum import numdb

    structure = numdb.get("iban").info(country)[0][1].get("bban", "")  # such as 8!n10!n
    parts = [int(part) for part in re.findall(r"(\d+)!", structure)]
    return 4 + sum(parts) if parts else 0


def addresses(scan: Scan) -> Iterator[Found]:
    """IP addresses of both kinds."""
    text = scan.spaced
    if text.count(".") >= 3:
        for match in _IPV4.finditer(text):
            versioned = _VERSION_BEFORE.search(text[max(0, match.start() - 16) : match.start()])
            if not versioned and all(int(part) < 256 for part in match[0].split(".")):
                yield Found("ip", *match.span())
    if text.count(":") >= 2:
        for match in _IPV6.finditer(text):
            address = match[0].rstrip(".") if match[0].endswith("::") else match[0].rstrip(".:")
            if _is_ipv6(address):
                yield Found("ip", match.start(), match.start() + len(address))


def network_cards(scan: Scan) -> Iterator[Found]:
    """MAC addresses."""
    if scan.text.count(":") >= 5:
        for match in _MAC.finditer(scan.spaced):
            yield Found("id", *match.span())


def _is_ipv6(address: str) -> bool:
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return any(map(str.isdigit, address))  # "cafe::" is an address as well as a word of C++
