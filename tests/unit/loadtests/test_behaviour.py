"""The behavioural tests' texts are valid, balanced and in no seed; their pairs pass and fail as they should."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from loadtests.quality.behaviour import DATA, KINDS, Pair, direction, filled, fillings, invariance, rows
from models.curation.similarity import SimilarityIndex, fingerprints
from models.curation.types import Rules
from models.data.dataset import SEED
from models.text import words

LABELS = {"positive", "neutral", "negative"}
REGISTERS = {"headline", "wire", "report", "notice", "broker", "post"}
KEPT = rows(DATA / "invariance.csv")
TURNED = rows(DATA / "direction.csv")
_NUMBER = re.compile(r"\d+(\.\d+)?")


def test_the_invariance_texts_are_enough_and_balanced() -> None:
    labels, registers = Counter(row["label"] for row in KEPT), Counter(row["register"] for row in KEPT)
    assert len(KEPT) >= 150
    assert (set(labels), set(registers)) == (LABELS, REGISTERS)
    assert max(labels.values()) <= 1.1 * min(labels.values())
    assert min(Counter((row["register"], row["label"]) for row in KEPT).values()) >= 8
    assert min(Counter(pair.kind for pair in invariance(DATA / "invariance.csv")).values()) >= 140


@pytest.mark.parametrize("kind", KINDS)
def test_slots_have_several_different_fillings(kind: str) -> None:
    found = [(row["text"], fillings(row["text"], kind)) for row in KEPT]
    assert sum(count > 0 for _, count in found) >= 50
    for text, count in found:
        assert count == 0 or count >= 3, text
        assert len({filled(text, kind, at) for at in range(count)}) == count, text


def test_no_slot_is_left_open() -> None:
    for row in KEPT:
        assert sum(fillings(row["text"], kind) > 0 for kind in KINDS) > 0, row["text"]
        assert not re.search(r"[{}|]|  |^ | $", filled(row["text"])), row["text"]


def test_the_numbers_of_a_slot_are_of_one_size() -> None:
    """4 % and 7 % have the same sense, 4 % and 40 % need not."""
    for row in KEPT:
        for slot in re.findall(r"\{number:([^{}]*)\}", row["text"]):
            values = [float(found[0]) for one in slot.split("|") if (found := _NUMBER.search(one.replace(",", "")))]
            assert not values or max(values) < 2 * min(values), row["text"]


def test_the_direction_pairs_are_enough_and_change_their_label() -> None:
    kinds = Counter(row["kind"] for row in TURNED)
    assert len(TURNED) >= 120
    assert min(kinds.values()) >= 10
    assert min(kinds[name] for name in ("negated verb", "against expectation", "result and reaction")) >= 20
    assert {row[name] for row in TURNED for name in ("before_label", "after_label")} == LABELS
    assert [row for row in TURNED if row["before_label"] == row["after_label"]] == []
    after = Counter(row["after_label"] for row in TURNED)
    assert min(after["positive"], after["negative"]) >= 0.4 * len(TURNED)  # no label passes by being given always


def test_no_text_is_in_the_seed_or_twice() -> None:
    """Near copies within a pair, or of one text with other fillings, are meant."""
    families = [[filled(row["text"]), *_others(row["text"])] for row in KEPT]
    families += [[row["before"], row["after"]] for row in TURNED]
    index = SimilarityIndex(Rules().near_duplicate)
    for fingerprint in fingerprints(words(row["text"]) for row in rows(SEED / "sentiment.csv")):
        index.add(-1, fingerprint)
    for number, texts in enumerate(families):
        found = fingerprints(map(words, texts))
        assert [text for text, one in zip(texts, found, strict=True) if index.similar(one)] == []
        for fingerprint in found:
            index.add(number, fingerprint)


def _others(text: str) -> list[str]:
    return [filled(text, kind, at) for kind in KINDS for at in range(1, fillings(text, kind))]


def test_each_kind_of_slot_changes_alone(tmp_path: Path) -> None:
    file = tmp_path / "invariance.csv"
    text = "{company:One|Two} from {number:4|5|6} to {number:7|8|9}"
    file.write_text(f"label,register,text\npositive,wire,{text}\n", encoding="utf-8")
    assert [(pair.kind, pair.before, pair.after) for pair in invariance(file)] == [
        ("company", "One from 4 to 7", "Two from 4 to 7"),
        ("number", "One from 4 to 7", "One from 5 to 8"),
        ("number", "One from 4 to 7", "One from 6 to 9"),
    ]
    with pytest.raises(ValueError, match="as many fillings"):
        fillings("from {number:4|5} to {number:7|8|9}", "number")


@pytest.mark.parametrize(
    ("guide", "answers", "passes"),
    [
        (("positive", "positive"), ("positive", "positive"), True),
        (("positive", "positive"), ("neutral", "neutral"), True),  # right or wrong, the change did not matter
        (("positive", "positive"), ("positive", "neutral"), False),
        (("positive", "negative"), ("positive", "negative"), True),
        (("positive", "negative"), ("neutral", "negative"), True),
        (("positive", "negative"), ("positive", "neutral"), False),  # changed, but not to what it should
        (("positive", "negative"), ("negative", "negative"), False),  # not changed
    ],
)
def test_a_pair_passes(guide: Sequence[str], answers: Sequence[str], passes: bool) -> None:
    pair = Pair("kind", "before", "after", *guide)
    assert pair.passed(dict(zip(("before", "after"), answers, strict=True))) is passes


def test_the_pairs_of_direction_are_read() -> None:
    assert len(direction(DATA / "direction.csv")) == len(TURNED)
