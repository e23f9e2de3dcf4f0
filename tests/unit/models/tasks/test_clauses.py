"""Where a text is divided into clauses, and that none is found where nothing can be divided."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from models.tasks.clauses import MAX_CLAUSES, may_have_clauses, split_clauses

DIVIDED = {
    "cancel the order and where is my refund": ["cancel the order", "where is my refund"],
    "Cancel order 12.50 now! Also I'd like to unsubscribe.": ["Cancel order 12.50 now", "I'd like to unsubscribe"],
    "do you take paypal & can i pay later": ["do you take paypal", "can i pay later"],
    "track it for me n close my account": ["track it for me", "close my account"],
    "reset my password\nthen delete the app": ["reset my password", "delete the app"],
    "Is there a fee? if not, cancel it please": ["Is there a fee", "cancel it please"],
    # "also" and "then" within a clause
    "forgot my pin. I also lost my card": ["forgot my pin", "I also lost my card"],
    "cancel it now, could you then refund me": ["cancel it now", "could you then refund me"],
    # a clause that tells why belongs to its neighbour
    "If it is late, cancel it, and refund me too": ["If it is late, cancel it", "refund me too"],
    "you charged me twice, so I want it back. Thank you": ["you charged me twice, so I want it back", "Thank you"],
    "the page is broken, so what's your phone number": ["the page is broken", "so what's your phone number"],
    "refund me. because it broke": ["refund me", "because it broke"],
    # a single word is no clause
    "Hi, cancel it now and refund me": ["Hi, cancel it now", "refund me"],
    "change my name and address, and close it then": ["change my name and address", "close it"],
    "No. I will not pay. Stop": ["No. I will not pay"],
    "cancel my order. refund my money. Thanks": ["cancel my order", "refund my money. Thanks"],
}


@pytest.mark.parametrize("text", DIVIDED)
def test_a_text_is_divided_at_what_joins_its_clauses(text: str) -> None:
    spans = split_clauses(text)
    found = [text[start:end] for start, end in spans]
    assert found == (DIVIDED[text] if len(DIVIDED[text]) > 1 else [])
    assert may_have_clauses(text)
    assert all(one.end <= other.start for one, other in pairwise(spans))


@pytest.mark.parametrize(
    "text",
    [
        "where is my order 88231?",
        "name and address",
        "cancel and refund",
        "and",
        "And, but also and then; plus & and.",
        ", , , ,",
        "😀😀 😀, 😀 and 😀!",
        "register a P.O. box",
        "",
        " ",
        "cancel",
        "ship it to St. Johnsbury",
        "我想取消订单。退款在哪里？",
        "أريد إلغاء طلبي",
    ],
)
def test_a_text_of_one_clause_is_not_divided(text: str) -> None:
    assert split_clauses(text) == []


@pytest.mark.parametrize(
    "text", ["cancel my order and " * 10_000, "a, b c. " * 10_000, "and " * 100_000, ", " * 100_000, "x" * 1_000_000]
)
def test_a_text_of_any_length_takes_a_moment_and_has_few_clauses(text: str) -> None:
    began = time.perf_counter()
    assert len(split_clauses(text)) <= MAX_CLAUSES
    assert time.perf_counter() - began < 0.1
