"""The hand-written test sets in loadtests/quality/data: marked as their README says, and unseen by the seed model."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from models.curation.similarity import SimilarityIndex, fingerprints
from models.curation.types import Rules
from models.text import words

ROOT = Path(__file__).parents[3]
DATA = ROOT / "loadtests" / "quality" / "data"
SEED = ROOT / "models" / "data" / "seed" / "intent.csv"
NORMAL_FORMS = {
    "order_id": r"[A-Z0-9][A-Z0-9-]*",
    "invoice_id": r"[A-Z0-9][A-Z0-9/ -]*",
    "email": r"[^\sA-Z@]+@[^\sA-Z@]+",
    "phone": r"\+?\d{6,15}",
    "amount": r"[A-Z]{3} \d+(\.\d\d)?",
    "date": r"\d{4}-\d\d(-\d\d)?|--\d\d-\d\d|[^A-Z]+",
    "time": r"([01]\d|2[0-3]):[0-5]\d",
    "product": r".+",
}


def read_lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def texts_of(name: str) -> list[str]:
    if name == "faq.csv":
        return [row["question"] for row in read_table(DATA / name)]
    return [line["text"] for line in read_lines(name)]


FILES = ["clauses.jsonl", "entities.jsonl", "faq.csv", "paraphrases.jsonl", "unanswered.jsonl"]


def assert_spans_are_words(text: str, spans: list[dict[str, Any]]) -> None:
    """Spans are in order, do not overlap, and neither begin nor end with a space or a joining punctuation mark."""
    ends = [0, *(span["end"] for span in spans)]
    for previous, span in zip(ends, spans, strict=False):
        assert previous <= span["start"] < span["end"] <= len(text), (text, span)
        marked = text[span["start"] : span["end"]]
        assert marked == marked.strip(" ,;:?!"), (text, marked)


def test_clauses_have_labels_of_the_seed_and_spans_of_the_text() -> None:
    lines = read_lines("clauses.jsonl")
    labels = {row["label"] for row in read_table(SEED)} - {"out_of_scope"}
    for line in lines:
        assert_spans_are_words(line["text"], line["intents"])
        found = [intent["label"] for intent in line["intents"]]
        assert len(set(found)) == len(found), line
    assert Counter(len(line["intents"]) for line in lines) == {1: 100, 2: 93, 3: 7}
    assert {intent["label"] for line in lines for intent in line["intents"]} == labels


def test_entities_have_spans_of_the_text_and_a_normal_form() -> None:
    lines = read_lines("entities.jsonl")
    products = set((DATA / "products.txt").read_text("utf-8").splitlines())
    for line in lines:
        assert_spans_are_words(line["text"], line["entities"])
        for entity in line["entities"]:
            assert re.fullmatch(NORMAL_FORMS[entity["type"]], entity["normal"]), (line["text"], entity)
            if entity["type"] == "product":
                assert entity["normal"] in products
                marked = line["text"][entity["start"] : entity["end"]]
                assert marked.casefold() == entity["normal"].casefold()
    assert len(products) == 60
    assert Counter((line["hard"], line["part"]) for line in lines) == {
        (hard, part): 100 for hard in (True, False) for part in ("choose", "report")
    }
    assert {entity["type"] for line in lines for entity in line["entities"]} == set(NORMAL_FORMS)


def test_every_named_product_and_address_is_marked() -> None:
    products = (DATA / "products.txt").read_text("utf-8").casefold().splitlines()
    for line in read_lines("entities.jsonl"):
        rest = list(line["text"].casefold())
        for entity in line["entities"]:
            rest[entity["start"] : entity["end"]] = "_" * (entity["end"] - entity["start"])
        unmarked = "".join(rest)
        assert "@" not in unmarked, line["text"]
        assert not [product for product in products if product in unmarked], line["text"]


def test_questions_and_paraphrases_belong_together() -> None:
    entries = read_table(DATA / "faq.csv")
    assert len(entries) == 1000
    assert len({entry["id"] for entry in entries}) == 1000
    assert all(entry["question"].strip() and entry["answer"].strip() and entry["tags"] for entry in entries)
    assert Counter(entry["language"] for entry in entries) == {"en": 960, "de": 14, "es": 13, "fr": 13}
    paraphrases = read_lines("paraphrases.jsonl")
    assert {line["id"] for line in paraphrases} <= {entry["id"] for entry in entries}
    assert len({line["id"] for line in paraphrases}) == len(paraphrases) == 300
    assert Counter((line["overlap"], line["part"]) for line in paraphrases) == {
        (overlap, part): 75 for overlap in ("low", "some") for part in ("choose", "report")
    }
    assert Counter((line["kind"], line["part"]) for line in read_lines("unanswered.jsonl")) == {
        (kind, part): 50 for kind in ("domain", "other") for part in ("choose", "report")
    }


def test_paraphrases_use_other_words() -> None:
    """Of the words of four letters or more, a paraphrase of low overlap shares hardly any, the others about a third."""
    questions = {entry["id"]: entry["question"] for entry in read_table(DATA / "faq.csv")}
    shared: dict[str, list[float]] = {"low": [], "some": []}
    for line in read_lines("paraphrases.jsonl"):
        said, asked = (
            {word for word in words(text) if len(word) > 3} for text in (line["text"], questions[line["id"]])
        )
        shared[line["overlap"]].append(len(said & asked) / max(1, len(said)))
    low, some = (sum(fractions) / len(fractions) for fractions in shared.values())
    assert low < 0.1
    assert low < some < 0.4


@pytest.mark.parametrize("name", FILES)
def test_no_text_occurs_twice(name: str) -> None:
    counts = Counter(words(text) for text in texts_of(name))
    assert not [text for text, count in counts.items() if count > 1]


@pytest.mark.parametrize("name", FILES)
def test_no_text_is_a_near_duplicate_of_the_seed(name: str, seed_index: SimilarityIndex) -> None:
    texts = texts_of(name)
    marks = fingerprints([words(text) for text in texts])
    assert not [text for text, mark in zip(texts, marks, strict=True) if seed_index.similar(mark)]


@pytest.fixture(scope="module")
def seed_index() -> SimilarityIndex:
    index = SimilarityIndex(Rules().near_duplicate)
    for name, mark in enumerate(fingerprints([words(row["text"]) for row in read_table(SEED)])):
        index.add(name, mark)
    return index
