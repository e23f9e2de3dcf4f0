"""Symbols that a tokenizer does not know are spelled in words, and what it does not know is counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from export.base_model import DEFAULT_BASE, resolve_base
from export.symbols import Speller, spelled_symbols
from export.tokenizer import TextEncoder
from tests.helpers.bases import byte_pairs, unigram, word_piece


@pytest.fixture(scope="module")
def default() -> TextEncoder:
    """The encoder of the default base."""
    tokenizer = Tokenizer.from_file(str(Path(resolve_base(DEFAULT_BASE)) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return TextEncoder(tokenizer, 64, spelled_symbols(tokenizer))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("😡😡😡", "pouting face pouting face pouting face"),
        ("❤️ it", "red heart it"),
        ("👍🏽 ok", "thumbs up sign ok"),
        ("done ✅!", "done white heavy check mark !"),
        ("🇩🇪", "d e"),
        ("👩\u200d💻", "woman personal computer"),
        ("press 1️⃣", "press 1"),
        ("𝐇𝐞𝐥𝐥𝐨 ＷＯＲＬＤ ①", "Hello WORLD 1"),
        ("to the moon🚀🚀", "to the moon rocket rocket"),
    ],
)
def test_a_symbol_means_its_name(default: TextEncoder, text: str, meant: str) -> None:
    assert default.encode([text])[0] == default.encode([meant])[0]


@pytest.mark.parametrize("text", ["plain", "naïve café — “quoted”…", "5 € → ½ ★ ≤", "你好 привет", "日本"])
def test_what_the_tokenizer_knows_stays(default: TextEncoder, text: str) -> None:
    assert Speller(default.symbols).spell(text) == text


def test_feelings_in_emoji_differ(default: TextEncoder) -> None:
    faces = ["😡😡😡", "❤️❤️❤️", "😂", "😭", "👎", "👍"]
    assert len({row.ids for row in default.encode(faces)}) == len(faces)
    assert default.unknown(faces).share == 0.0


def test_a_long_row_of_emoji_is_cut_and_says_so(default: TextEncoder) -> None:
    (row,) = default.encode(["🎉" * 100_000])
    assert (len(row.ids), row.truncated) == (64, True)


def test_a_tokenizer_over_bytes_needs_no_spelling() -> None:
    assert spelled_symbols(byte_pairs("RobertaTokenizer", 600).backend_tokenizer) == {}


def test_unigram_and_word_piece_tokenizers_are_asked_what_they_know() -> None:
    for tokenizer in (unigram("XLMRobertaTokenizer", 400), word_piece("MPNetTokenizer", 300)):
        assert spelled_symbols(tokenizer.backend_tokenizer)["😡"] == " pouting face "


def test_unknown_tokens_are_counted_and_shown(default: TextEncoder) -> None:
    unknown = default.unknown(["the ﷽ shop", "﷽", "of words"])
    assert unknown.most_common == ("﷽",)
    assert unknown.share == pytest.approx(2 / 6)
