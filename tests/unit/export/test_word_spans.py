"""The words of a text: as the tokenizer divides it, in places of the text as the client sent it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from export.base_model import DEFAULT_BASE, resolve_base
from export.symbols import spelled_symbols
from export.tokenizer import TextEncoder
from export.word_spans import Word, words_of
from tests.helpers.bases import byte_pairs, unigram, word_piece

MAX_LENGTH = 64


def of_family(make: Callable[..., Any], name: str, size: int) -> TextEncoder:
    return TextEncoder(make(name, size).backend_tokenizer, MAX_LENGTH)


@pytest.fixture(scope="module")
def default() -> TextEncoder:
    """The encoder of the default base."""
    tokenizer = Tokenizer.from_file(str(Path(resolve_base(DEFAULT_BASE)) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return TextEncoder(tokenizer, MAX_LENGTH, spelled_symbols(tokenizer))


@pytest.fixture(scope="module")
def encoders(default: TextEncoder) -> dict[str, TextEncoder]:
    return {
        "default": default,
        "words": of_family(word_piece, "BertTokenizer", 500),
        "bytes": of_family(byte_pairs, "RobertaTokenizer", 400),
        "unigram": of_family(unigram, "XLMRobertaTokenizer", 500),
    }


def words(encoder: TextEncoder, text: str, max_words: int = 100) -> list[Word]:
    return words_of(text, encoder.tokens([text])[0], max_words)


def shown(encoder: TextEncoder, text: str, max_words: int = 100) -> list[str]:
    return [text[word.start : word.end] for word in words(encoder, text, max_words)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("where is my order 88231?", ["where", "is", "my", "order", "88231", "?"]),
        ("  naïve cafe\u0301\n", ["naïve", "cafe\u0301"]),
        ("我的订单 ok", ["我", "的", "订", "单", "ok"]),
        ("ｆｕｌｌ ｗｉｄｔｈ", ["ｆｕｌｌ", "ｗｉｄｔｈ"]),
        ("I ❤️ it 😡😡", ["I", "❤️", "it", "😡", "😡"]),
        ("👨\u200d👩\u200d👧 👍🏽 🇩🇪🇫🇷", ["👨\u200d👩\u200d👧", "👍🏽", "🇩🇪", "🇫🇷"]),
        ("𝐛𝐨𝐥𝐝 text", ["𝐛𝐨𝐥𝐝", "text"]),
        ("a qqq\u0f00 b", ["a", "qqq\u0f00", "b"]),  # an unknown token
        ("[SEP] x", ["[SEP]", "x"]),
        ("\u200d\ufe0f", []),
    ],
)
def test_words_of_the_default_base(default: TextEncoder, text: str, found: list[str]) -> None:
    assert shown(default, text) == found


@pytest.mark.parametrize(
    ("family", "text", "found"),
    [
        ("bytes", "where is  my order?", ["where", "is", "my", "order", "?"]),
        ("bytes", "ok 我的 😡👍🏽", ["ok", "我", "的", "😡👍🏽"]),
        ("unigram", "where is  my order", ["where", "is", "my", "order"]),
        ("unigram", "我的", ["我的"]),  # one unknown token
        ("words", "สวัสดี zzz", ["สวัสดี", "zzz"]),
    ],
)
def test_words_of_other_tokenizers(encoders: dict[str, TextEncoder], family: str, text: str, found: list[str]) -> None:
    assert shown(encoders[family], text) == found


@settings(deadline=None)
@example(text="0\x1f", family="unigram", max_words=1)
@given(
    text=st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("ab ?é\u0301😡👍🏽\u200d\ufe0f🇩🇪我的สั"))),
    family=st.sampled_from(("default", "words", "bytes", "unigram")),
    max_words=st.integers(1, 60),
)
def test_any_text(encoders: dict[str, TextEncoder], text: str, family: str, max_words: int) -> None:
    """Words follow each other in the text and in the ids, and the ids are those that the model reads."""
    encoder = encoders[family]
    (tokens,) = encoder.tokens([text])
    assert tokens.ids == encoder.encode([text])[0].ids
    found = words_of(text, tokens, max_words)
    assert len(found) <= max_words
    end, last = 0, 0
    for word in found:
        assert end <= word.start < word.end <= len(text)
        assert last <= word.first < word.last <= len(tokens.ids)
        assert text[word.start : word.end] == text[word.start : word.end].strip()
        assert len(word.left_out(tokens.ids)) == len(tokens.ids) - (word.last - word.first)
        end, last = word.end, word.last


def test_neighbours_are_taken_together_in_a_text_of_too_many_words(default: TextEncoder) -> None:
    text = "one two three four five six seven"
    assert shown(default, text, 3) == ["one two", "three four", "five six seven"]
    assert shown(default, text, 7) == text.split()


def test_what_is_cut_off_has_no_words(default: TextEncoder) -> None:
    assert len(words(default, "order " * 1000)) == MAX_LENGTH - 2
    (tokens,) = default.tokens(["x" * 100_000])
    assert tokens.ids == default.encode(["x" * 100_000])[0].ids
