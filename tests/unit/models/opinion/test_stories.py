"""Which headlines are copies of one another: measured on pairs, and what must never happen."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from models.opinion.stories import is_copy, sketches, story_words

PAIRS = Path(__file__).parents[3] / "data" / "opinion" / "story_pairs.tsv"


def one_story(one: str, other: str) -> bool:
    """Whether the store would find them, and take them for one story."""
    first, second = sketches([one, other])
    return bool(set(first.bands) & set(second.bands)) and is_copy(first.words, second.words)


@pytest.mark.parametrize("part", ["tuned", "held back"])
def test_copies_are_found_and_other_news_is_not(part: str) -> None:
    """`tuned`: pairs with which the rules and the bound were chosen; `held back`: written before, looked at after."""
    with PAIRS.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["set"] == part]
    copies = [one_story(row["one"], row["other"]) for row in rows if row["is"] == "copy"]
    others = [one_story(row["one"], row["other"]) for row in rows if row["is"] == "other"]
    assert sum(copies) >= 0.88 * len(copies)
    assert sum(others) <= 0.02 * len(others)


@pytest.mark.parametrize("kind", ["number", "negation", "company"])
def test_no_other_number_name_or_negation_is_a_copy(kind: str) -> None:
    with PAIRS.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["kind"] == kind]
    assert len(rows) > 8
    assert [row["other"] for row in rows if one_story(row["one"], row["other"])] == []


def test_the_order_of_two_texts_does_not_matter() -> None:
    with PAIRS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            first, second = sketches([row["one"], row["other"]])
            assert is_copy(first.words, second.words) == is_copy(second.words, first.words)


@pytest.mark.parametrize(
    "text", ["", " ", "…", "a", "- Reuters", "UPDATE 1-", "🚀", "\ud800", "\x00", "#tag", "x" * 9000]
)
def test_any_text_has_a_sketch(text: str) -> None:
    (sketch,) = sketches([text])
    assert len(set(sketch.bands)) == len(sketch.bands) == 13
    assert all(-(1 << 63) <= band < 1 << 63 for band in sketch.bands)


def test_short_texts_are_copies_only_if_they_are_equal() -> None:
    assert one_story("Gold rises", "GOLD RISES!")
    assert not one_story("Gold rises", "Gold rises again")
    assert not one_story("🚀", "📉")


def test_the_words_of_a_story() -> None:
    assert story_words("UPDATE 2-Gold miner's output up 4.50 percent to $1,250 mln | Reuters") == [
        "gold", "miner", "output", "up", "4.5", "%", "$", "1250", "mn",
    ]  # fmt: skip
    assert story_words("央行不变,降息") == ["央", "行", "不", "变", "降", "息"]


def test_no_texts_have_no_sketches() -> None:
    assert sketches([]) == []
