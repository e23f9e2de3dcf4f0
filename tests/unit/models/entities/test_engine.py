"""What is found in a text, with its normal form and its place, and what is not."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.entities import Entity, default_engine
from models.entities.engine import MAX_CHARACTERS, Engine


def found(text: str, engine: Engine | None = None) -> list[tuple[str, str, str]]:
    """(type, value, the text at its place)"""
    return [(one.type, one.value, text[one.start : one.end]) for one in (engine or default_engine()).entities(text)]


@pytest.mark.parametrize(
    ("text", "kind", "value", "shown"),
    [
        ("where is my order 88231?", "order_id", "88231", "88231"),
        ("cancel #40022 please", "order_id", "40022", "40022"),
        ("my order number is 2125550175", "order_id", "2125550175", "2125550175"),
        ("asistance with ordr ord-5541", "order_id", "ORD-5541", "ord-5541"),
        ("88231 is my order number", "order_id", "88231", "88231"),
        ("Bestellung A-310-99 fehlt", "order_id", "A-310-99", "A-310-99"),
        ("it is about WX-40-1187", "order_id", "WX-40-1187", "WX-40-1187"),
        ("50667781", "order_id", "50667781", "50667781"),
        ("invoice INV-1180/26 is wrong", "invoice_id", "INV-1180/26", "INV-1180/26"),
        ("Order ID: 5f3a9c2e", "order_id", "5F3A9C2E", "5f3a9c2e"),
        ("Rechnung Nr. 4711 fehlt", "invoice_id", "4711", "4711"),
        ("Mi pedido número 998877", "order_id", "998877", "998877"),
        ("Where's my order? Number is 4829301", "order_id", "4829301", "4829301"),
        ("the bill for #77120", "order_id", "77120", "77120"),
        ("Rechnung R-55012 fehlt", "invoice_id", "R-55012", "R-55012"),
        ("write to Jane.Doe@Example.com!", "email", "jane.doe@example.com", "Jane.Doe@Example.com"),
        ("ring (212) 555-0147", "phone", "2125550147", "(212) 555-0147"),
        ("my mobile: +44 7700 900123", "phone", "+447700900123", "+44 7700 900123"),
        ("you took $1,080.00", "amount", "USD 1080.00", "$1,080.00"),
        ("1.049,50 € zu viel", "amount", "EUR 1049.50", "1.049,50 €"),
        ("remboursez 1 250,00 €", "amount", "EUR 1250.00", "1 250,00 €"),
        ("it was CHF 1'250.50", "amount", "CHF 1250.50", "CHF 1'250.50"),
        ("$1.2 million in all", "amount", "USD 1200000.00", "$1.2 million"),
        ("it costs 5k USD", "amount", "USD 5000.00", "5k USD"),
        ("20 bucks", "amount", "USD 20.00", "20 bucks"),
        ("12,800円でした", "amount", "JPY 12800", "12,800円"),
        ("fifty-five euros back", "amount", "EUR 55.00", "fifty-five euros"),
        ("A$5 and nothing else", "amount", "AUD 5.00", "A$5"),
        ("on 2026-05-03", "date", "2026-05-03", "2026-05-03"),
        ("am 3.5.2026", "date", "2026-05-03", "3.5.2026"),
        ("on 05/22/2026", "date", "2026-05-22", "05/22/2026"),
        ("May 3rd, 2026", "date", "2026-05-03", "May 3rd, 2026"),
        ("el 8 de mayo", "date", "--05-08", "8 de mayo"),
        ("le 1er février 2026", "date", "2026-02-01", "1er février 2026"),
        ("29 February 2028", "date", "2028-02-29", "29 February 2028"),
        ("since last Friday", "date", "last friday", "last Friday"),
        ("2026年5月3日まで", "date", "2026-05-03", "2026年5月3日"),
        ("at 14:30", "time", "14:30", "14:30"),
        ("at 2.30 pm", "time", "14:30", "2.30 pm"),
        ("um 8 Uhr", "time", "08:00", "8 Uhr"),
        ("12 am", "time", "00:00", "12 am"),
        ("12 p.m.", "time", "12:00", "12 p.m."),
        ("quarter to one", "time", "12:45", "quarter to one"),
        ("before noon", "time", "12:00", "noon"),
    ],
)
def test_found_with_its_normal_form(text: str, kind: str, value: str, shown: str) -> None:
    assert found(text) == [(kind, value, shown)]


@pytest.mark.parametrize(
    "text",
    [
        "I may march down to your store",
        "march 8 km in these boots",
        "I want to order 4 of these and 2 of those",
        "order more than 500 and get a discount",
        "the invoice lists 14 items",
        "ticket 88120 was closed",
        "EAN 4006381333931 is sold out",
        "version 2.11.0 on Android 15",
        "is the 128-GB one a CR2032?",
        "an RTX-4090 graphics card",
        "31 February 2026",
        "on 31.2.2026",
        "at 25:00 or 7:61",
        "a ratio of 4:3",
        "33 % of 12 plates",
        "Kundennummer 30031177",
        "my password is hunter2 and my card is 4111 1111 1111 1111",
        "guten Morgen",
    ],
)
def test_nothing_is_found(text: str) -> None:
    assert found(text) == []


def test_several_in_one_text() -> None:
    text = "order 73012, 73019 and 73025 of 3 May: $12.50 back to ann@example.com by 5pm"
    assert [one[:2] for one in found(text)] == [
        ("order_id", "73012"),
        ("order_id", "73019"),
        ("order_id", "73025"),
        ("date", "--05-03"),
        ("amount", "USD 12.50"),
        ("email", "ann@example.com"),
        ("time", "17:00"),
    ]


def test_right_to_left_text() -> None:
    """Digits of other scripts become ASCII, and marks of direction neither hide a number nor move its place."""
    text = "أين طلبي رقم ٨٨٢٣١؟ دفعت \u200f150 AED\u200f"
    assert found(text) == [("order_id", "88231", "٨٨٢٣١"), ("amount", "AED 150.00", "150 AED")]
    text = "\u202bהזמנה 88\u200f231\u202c לא הגיעה"
    assert found(text) == [("order_id", "88231", "88\u200f231")]


def test_full_width_digits() -> None:
    text = "注文番号は１２３４５６です。 ｔｅｌ ＋８１ ３ ５５５５ ０１２３"
    assert found(text) == [
        ("order_id", "123456", "１２３４５６"),
        ("phone", "+81355550123", "＋８１ ３ ５５５５ ０１２３"),
    ]


@pytest.mark.parametrize("text", ["9" * 10_000, "order " + "9" * 10_000, "#" + "1" * 10_000, "$" + "7" * 10_000])
def test_ten_thousand_digits_are_no_entity(text: str) -> None:
    assert found(text) == []


def test_what_the_end_of_a_long_text_cuts_is_not_found() -> None:
    begin = "where is my order 88231? " + "please " * 1000
    at = begin[:MAX_CHARACTERS].rindex("please")
    text = begin[:at] + "order " + "7" * 50
    assert found(begin) == [("order_id", "88231", "88231")]
    assert found(text) == [("order_id", "88231", "88231")]


def test_offsets_are_of_the_text_as_it_was_sent() -> None:
    text = "\u200bＨｉ\u00ad, order\u00a0#\u200b88231"
    assert default_engine().entities(text) == [Entity("order_id", "88231", text.index("8"), len(text))]


WORDS = st.sampled_from(
    ["fifty", "-", "five", " ", "euros", "half past ten", "noon", "on ", "Sunday", "jane", ".", " at ", "example", "!",
     " dot ", "com", "arroba", "five o'clock", "pm", "order", "guten morgen", "morgen", "a hundred pounds", "&", "-at-",
     "gmail", "?"]
)  # fmt: skip


@given(st.lists(WORDS, max_size=12).map("".join))
@settings(max_examples=600, deadline=None)
@example("jane at example dot com")
@example("jane dot doe at gmail")
@example("jane.doe at example.com")
@example("jane -at- example -dot- com")
@example("jane arroba example punto es")
@example("jane&commat;example.com")
def test_the_first_look_hides_nothing(text: str) -> None:
    assert default_engine().entities(text) == default_engine().search_entities(text)


PIECES = st.sampled_from(
    ["order ", "#", "88231", "7", "-", ".", " ", "€", "12,50", "3", " May ", "2026", ":", "30", " pm", "@", "a.b",
     "\u200f", "٣", "１", "ann@example.com", "+44 7700 900123", "İ", "円", "\ud800"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=30).map("".join))
@settings(max_examples=400, deadline=None)
def test_any_text_has_entities_in_order_and_apart(text: str) -> None:
    entities = default_engine().entities(text)
    assert all(0 <= one.start < one.end <= len(text) and one.value for one in entities)
    assert all(one.end <= two.start for one, two in pairwise(entities))
    assert default_engine().entities(text) == entities
