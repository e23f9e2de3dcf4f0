"""The remembering encoder: the same ids as the tokenizer's, asked once a text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.bundle import Bundle
from export.tokenizer import Encoded, Ids, TextEncoder
from serve.encoding import RememberingEncoder

MAX_LENGTH = 16


class Counting(TextEncoder):
    """The real encoder, which notes what it was asked."""

    asked: list[str]

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        self.asked = [*getattr(self, "asked", []), *texts]
        return super().encode(texts)


def never(ids: Ids) -> bool:
    return False


@pytest.fixture(scope="module")
def tokenizer_json(bundle_of: Callable[[str], Path]) -> Path:
    return Bundle.open(bundle_of("intent")).tokenizer_path


def test_a_text_is_tokenized_once_and_comes_back_in_its_place(tokenizer_json: Path) -> None:
    counting = Counting(tokenizer_json, MAX_LENGTH)
    encoder = RememberingEncoder(counting, MAX_LENGTH, 10)
    long = "order " * 40
    first = asyncio.run(encoder.encode(["where is it", long]))
    again = asyncio.run(encoder.encode([long, "a new one", "where is it"]))
    assert counting.asked == ["where is it", long, "a new one"]
    assert again == [first[1], TextEncoder(tokenizer_json, MAX_LENGTH).encode(["a new one"])[0], first[0]]
    assert again[0].truncated
    assert not again[2].truncated


def test_only_texts_without_an_answer_count_in_the_estimate(tokenizer_json: Path) -> None:
    encoder = RememberingEncoder(TextEncoder(tokenizer_json, MAX_LENGTH), MAX_LENGTH, 10)
    before = encoder.estimated_tokens(["where is it", "hello"], never)
    (known,) = asyncio.run(encoder.encode(["where is it"]))
    assert encoder.estimated_tokens(["where is it"], never) == len(known.ids), "it was tokenized, and never answered"

    def answered(ids: Ids) -> bool:
        return ids == known.ids

    assert 0 < encoder.estimated_tokens(["where is it", "hello"], answered) < before
    assert encoder.estimated_tokens(["where is it"], answered) == 0


def test_it_forgets_the_least_recently_used_and_never_keeps_a_very_long_text(tokenizer_json: Path) -> None:
    counting = Counting(tokenizer_json, MAX_LENGTH)
    encoder = RememberingEncoder(counting, MAX_LENGTH, 2)
    huge = "x" * 5000
    for text in ("a", "b", "a", "c", "a", "b", huge, huge):
        asyncio.run(encoder.encode([text]))
    assert counting.asked == ["a", "b", "c", "b", huge, huge]


def test_with_nothing_to_remember_it_asks_every_time(tokenizer_json: Path) -> None:
    counting = Counting(tokenizer_json, MAX_LENGTH)
    encoder = RememberingEncoder(counting, MAX_LENGTH, 0)
    asyncio.run(encoder.encode(["a", "a"]))
    asyncio.run(encoder.encode(["a"]))
    assert counting.asked == ["a", "a", "a"]
    assert encoder.estimated_tokens(["a"], never) > 0


@settings(deadline=None, max_examples=50)
@given(requests=st.lists(st.lists(st.text(max_size=60), max_size=5), max_size=6))
def test_it_gives_what_the_tokenizer_gives(tokenizer_json: Path, requests: list[list[str]]) -> None:
    plain = TextEncoder(tokenizer_json, MAX_LENGTH)
    encoder = RememberingEncoder(plain, MAX_LENGTH, 3)
    for texts in requests:
        assert asyncio.run(encoder.encode(texts)) == [plain.encode([text])[0] for text in texts]
