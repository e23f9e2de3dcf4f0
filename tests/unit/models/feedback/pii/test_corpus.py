"""Precision and recall of the detectors on hand-written sentences, and on numbers of every country and carrier.

A sentence counts only if exactly its marks are replaced: what is left must still be a sentence to learn from.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from models.feedback.pii import KINDS, find, redact

_MARK = re.compile(r"⟦(\w+)\|(.*?)⟧")
CORPORA = sorted(Path(__file__).parent.glob("*.txt"))


class Sentence(NamedTuple):
    text: str
    redacted: str
    personal: set[tuple[str, int, int]]


def sentences(file: Path) -> Iterator[Sentence]:
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#") or re.fullmatch(r"\[\w+\]", line):
            continue
        text, personal, at = "", set[tuple[str, int, int]](), 0
        for mark in _MARK.finditer(line):
            text += line[at : mark.start()]
            personal.add((mark[1], len(text), len(text) + len(mark[2])))
            text, at = text + mark[2], mark.end()
        yield Sentence(text + line[at:], _MARK.sub(r"[\1]", line), personal)


@pytest.mark.parametrize("file", CORPORA, ids=lambda file: file.stem)
def test_each_sentence_keeps_all_but_what_is_personal(file: Path) -> None:
    cases = list(sentences(file))
    assert len(cases) >= 100
    assert [(case.text, found) for case in cases if (found := redact(case.text)) != case.redacted] == []


def test_precision_and_recall_of_each_kind() -> None:
    marked, right, reported = Counter[str](), Counter[str](), Counter[str]()
    for case in (case for file in CORPORA for case in sentences(file)):
        found = {(one.kind, one.start, one.end) for one in find(case.text)}
        marked.update(kind for kind, *_ in case.personal)
        reported.update(kind for kind, *_ in found)
        right.update(kind for kind, *_ in found & case.personal)
    measured = {kind: (right[kind] / reported[kind], right[kind] / marked[kind]) for kind in marked}
    assert measured == dict.fromkeys(marked, (1.0, 1.0))
    assert set(KINDS) - marked.keys() == {"wallet", "account"}  # test_redact.py has these


def test_a_sentence_without_a_mark_counts_against_precision() -> None:
    (case,) = [case for case in sentences(CORPORA[0]) if case.text == "EAN 4006381333931 is sold out"]
    assert case.personal == set()
    assert case.redacted == case.text


@pytest.mark.parametrize("kind", [PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE], ids=["mobile", "fixed"])
@pytest.mark.parametrize(
    "notation",
    [PhoneNumberFormat.E164, PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.RFC3966],
    ids=["E164", "international", "RFC3966"],
)
def test_numbers_of_every_country_go(notation: int, kind: int) -> None:
    examples = (phonenumbers.example_number_for_type(region, kind) for region in phonenumbers.SUPPORTED_REGIONS)
    numbers = {phonenumbers.format_number(number, notation).removeprefix("tel:") for number in examples if number}
    assert len(numbers) > 200
    for frame in ("call me on {} please", "{} ist besetzt, Größe 42"):
        assert [number for number in numbers if redact(frame.format(number)) != frame.format("[phone]")] == []


@pytest.mark.parametrize("frame", ["call me on {} please", "meine Nummer ist {}, für Größe 42", "tél. {}"])
def test_national_numbers_go_after_a_word_for_them(frame: str) -> None:
    examples = (
        phonenumbers.example_number_for_type(region, PhoneNumberType.MOBILE)
        for region in phonenumbers.SUPPORTED_REGIONS
    )
    numbers = {phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL) for number in examples if number}
    long = [number for number in numbers if sum(map(str.isdigit, number)) >= 7]  # shorter ones could be any number
    kept = [number for number in long if redact(frame.format(number)) != frame.format("[phone]")]
    assert len(kept) <= 0.01 * len(long), kept


def digits(chance: random.Random, count: int) -> str:
    return "".join(chance.choices("0123456789", k=count))


def gtin(chance: random.Random, count: int, start: str = "") -> str:
    """A GTIN or SSCC of `count` digits with its check digit (GS1)."""
    body = start + digits(chance, count - 1 - len(start))
    return body + str(-sum(int(d) * (3 if i % 2 == 0 else 1) for i, d in enumerate(reversed(body))) % 10)


def clock(chance: random.Random) -> str:
    return f"{chance.randint(10, 23)}{chance.randint(10, 59)}{chance.randint(10, 59)}"


def day(chance: random.Random, form: str) -> str:
    return form.format(d=f"{chance.randint(1, 28):02}", m=f"{chance.randint(1, 12):02}", y=chance.randint(1990, 2030))


STAYING: dict[str, Callable[[random.Random], str]] = {
    "EAN": lambda r: f"the mug {gtin(r, 13, r.choice(['40', '50', '590', '87', '690', '30', '978']))} is chipped",
    "UPC": lambda r: f"got {gtin(r, 12)} twice",
    "GTIN-14": lambda r: f"box {gtin(r, 14, '1')} is wet",
    "SSCC": lambda r: f"das Paket {gtin(r, 20, '00')} fehlt",
    "SSCC alone": lambda r: f"{gtin(r, 20, '00')} fehlt",
    "SSCC in fours": lambda r: "label " + re.sub(r"(\d{4})(?=\d)", r"\1 ", gtin(r, 20, "00")),
    "parcel of 12": lambda r: f"parcel {digits(r, 12)} is lost",
    "parcel of 14": lambda r: f"DPD {digits(r, 14)} is lost",
    "parcel of 22": lambda r: f"USPS {digits(r, 22)} lost",
    "UPU": lambda r: f"RR{digits(r, 9)}DE is lost",
    "order of 3-7-7": lambda r: f"{digits(r, 3)}-{digits(r, 7)}-{digits(r, 7)} fehlt",
    "order of 10": lambda r: f"order #{digits(r, 10)} late",
    "number of 8": lambda r: f"where is {digits(r, 8)} now",
    "invoice": lambda r: f"invoice 20{digits(r, 2)}-{digits(r, 6)} is wrong",
    "IMEI": lambda r: f"IMEI 35{digits(r, 13)} locked",
    "date": lambda r: f"on {day(r, '{d}.{m}.{y}')} and {day(r, '{y}-{m}-{d}')}",
    "dates": lambda r: f"{day(r, '{d}/{m}/{y}')}-{day(r, '{d}/{m}/{y}')}",
    "time stamp": lambda r: f"{day(r, '{y}{m}{d}')}{clock(r)} in the log",
    "price": lambda r: f"paid {r.randint(1, 999)}.{digits(r, 3)}.{digits(r, 3)},{digits(r, 2)} € in all",
    "sum": lambda r: f"about {r.randint(1, 999)} {digits(r, 3)} {digits(r, 3)} of them",
    "coordinates": lambda r: f"at {r.uniform(-90, 90):.6f}, {r.uniform(-180, 180):.6f} now",
    "version": lambda r: f"version {r.randint(0, 20)}.{r.randint(0, 99)}.{digits(r, 4)}.{digits(r, 2)} fails",
    "URL": lambda r: f"https://shop.example/p/{digits(r, 8)}/{digits(r, 10)}?id={digits(r, 12)}",
    "commit": lambda r: f"commit {r.getrandbits(160):040x}",
}


@pytest.mark.parametrize("name", STAYING)
def test_numbers_of_things_stay(name: str) -> None:
    """One in ten passes a checksum by chance, and a few of these have a card's or a phone's beginning."""
    chance = random.Random(name)
    texts = [STAYING[name](chance) for _ in range(200)]
    changed = [text for text in texts if redact(text) != text]
    assert len(changed) <= 0.05 * len(texts), changed


PIECES = st.sampled_from(
    [*"0123456789" * 3, *" .-()/+:,", "a", "DE", "id ", "call ", "card ", "parcel ", "ä", "00", "4111 1111 1111 1111"]
)


@given(st.lists(PIECES, max_size=40).map("".join))
@settings(max_examples=400, deadline=None)
def test_no_number_is_cut(text: str) -> None:
    """What is beside a placeholder is no rest of the number or of a word."""
    for one in find(text):
        around = text[max(0, one.start - 1) : one.start], text[one.end : one.end + 1]
        inside = text[one.start], text[one.end - 1]
        assert not (around[0].isdigit() and inside[0].isdigit()), text
        assert not (inside[1].isdigit() and around[1].isdigit()), text
        assert not (inside[1].isalpha() and around[1].isalpha()), text
