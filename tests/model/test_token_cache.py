"""The remembering encoder: the same ids as the tokenizer's, asked once a text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from export import words
from export.bundle import Bundle
from export.tokenizer import Encoded, Ids, TextEncoder
from serve.engine.token_cache import CachingEncoder

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


@pytest.fixture(scope="module")
def plain(tokenizer_json: Path) -> TextEncoder:
    return TextEncoder(tokenizer_json, MAX_LENGTH)


@pytest.fixture(scope="module")
def library(tokenizer_json: Path) -> Callable[[str], Encoded]:
    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_LENGTH)

    def encode(text: str) -> Encoded:
        encoding = tokenizer.encode(text)
        return Encoded(tuple(encoding.ids), bool(encoding.overflowing))

    return encode


def test_a_text_is_tokenized_once_and_comes_back_in_its_place(tokenizer_json: Path) -> None:
    counting = Counting(tokenizer_json, MAX_LENGTH)
    encoder = CachingEncoder(counting, MAX_LENGTH, 10)
    long = "order " * 40
    first = asyncio.run(encoder.encode(["where is it", long]))
    again = asyncio.run(encoder.encode([long, "a new one", "where is it"]))
    assert counting.asked == ["where is it", long, "a new one"]
    assert again == [first[1], TextEncoder(tokenizer_json, MAX_LENGTH).encode(["a new one"])[0], first[0]]
    assert again[0].truncated
    assert not again[2].truncated


def test_only_texts_without_an_answer_count_in_the_estimate(tokenizer_json: Path) -> None:
    encoder = CachingEncoder(TextEncoder(tokenizer_json, MAX_LENGTH), MAX_LENGTH, 10)
    before = encoder.estimated_tokens(["where is it", "hello"], never)
    (known,) = asyncio.run(encoder.encode(["where is it"]))
    assert encoder.estimated_tokens(["where is it"], never) == len(known.ids), "it was tokenized, and never answered"

    def answered(ids: Ids) -> bool:
        return ids == known.ids

    assert 0 < encoder.estimated_tokens(["where is it", "hello"], answered) < before
    assert encoder.estimated_tokens(["where is it"], answered) == 0


def test_it_forgets_the_least_recently_used_and_never_keeps_a_very_long_text(tokenizer_json: Path) -> None:
    counting = Counting(tokenizer_json, MAX_LENGTH)
    encoder = CachingEncoder(counting, MAX_LENGTH, 2)
    huge = "x" * 5000
    for text in ("a", "b", "a", "c", "a", "b", huge, huge):
        asyncio.run(encoder.encode([text]))
    assert counting.asked == ["a", "b", "c", "b", huge, huge]


def test_with_nothing_to_remember_it_asks_every_time(tokenizer_json: Path) -> None:
    counting = Counting(tokenizer_json, MAX_LENGTH)
    encoder = CachingEncoder(counting, MAX_LENGTH, 0)
    asyncio.run(encoder.encode(["a", "a"]))
    asyncio.run(encoder.encode(["a"]))
    assert counting.asked == ["a", "a", "a"]
    assert encoder.estimated_tokens(["a"], never) > 0


@settings(deadline=None, max_examples=50)
@given(requests=st.lists(st.lists(st.text(max_size=60), max_size=5), max_size=6))
def test_it_gives_what_the_tokenizer_gives(plain: TextEncoder, requests: list[list[str]]) -> None:
    encoder = CachingEncoder(plain, MAX_LENGTH, 3)
    for texts in requests:
        assert asyncio.run(encoder.encode(texts)) == [plain.encode([text])[0] for text in texts]


PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=80)
WORDY = st.lists(
    st.sampled_from(["Where", "is", "unaffable", "don't", "x" * 31, "x" * 101, "[SEP]", "[", "a_b", "7,5", "\n"])
)


@settings(deadline=None, max_examples=300)
@given(text=PRINTABLE | WORDY.map(" ".join) | st.text(max_size=40))
def test_word_by_word_it_gives_what_the_library_gives(
    plain: TextEncoder, library: Callable[[str], Encoded], text: str
) -> None:
    assert plain._words is not None
    plain._words._known.clear()
    assert [plain.encode([text]) for _ in range(2)] == [[library(text)]] * 2, "the second time from what was learnt"


def test_a_known_word_is_not_tokenized_again(tokenizer_json: Path) -> None:
    encoder = TextEncoder(tokenizer_json, MAX_LENGTH)
    first = encoder.encode(["Where is my order?"])
    encoder._tokenizer = None  # type: ignore[assignment]
    assert encoder.encode(["Where is my order?", "order my?"])[0] == first[0]
    with pytest.raises(AttributeError):
        encoder.encode(["Where is my \N{SNOWMAN}?"])


def test_the_words_that_are_kept_are_bounded(
    plain: TextEncoder, library: Callable[[str], Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "_MAX_WORDS", 6)
    assert plain._words is not None
    plain._words._known.clear()
    for text in ("one two three", "four five six", "seven eight nine ten eleven twelve", "z" * 40):
        assert plain.encode([text]) == [library(text)]
        assert len(plain._words._known) <= 6


_TOKEN = {"id": 0, "special": True, "normalized": False} | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)


@pytest.mark.parametrize(
    "change",
    [
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"normalizer": None},
        {"added_tokens": [_TOKEN | {"content": "<pad>"}]},
    ],
)
def test_a_tokenizer_of_another_kind_is_asked_for_every_text(tokenizer_json: Path, change: dict[str, object]) -> None:
    told = json.loads(tokenizer_json.read_bytes())
    assert words.tokenizes_by_word(Tokenizer.from_str(json.dumps(told)))
    assert not words.tokenizes_by_word(Tokenizer.from_str(json.dumps(told | change)))
