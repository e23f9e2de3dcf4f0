"""The texts and bodies that scenarios send. All draws are seeded: each run sends the same."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SEED = ROOT / "models" / "data" / "seed"
BANKING77 = ROOT.parent / "shared" / "data" / "banking77"
SHORT_TOKENS, LONG_TOKENS = 16, 256  # including the two special tokens


@dataclass(frozen=True)
class Corpus:
    """Labelled texts that a model of these labels has not been trained on."""

    name: str  # one of CORPORA
    title: str
    truth: dict[str, str]  # text -> its label

    @property
    def texts(self) -> list[str]:
        return list(self.truth)

    def is_of(self, bundle: Path) -> bool:
        """Whether the bundle's model knows all labels of the texts, so that its answers are right or wrong."""
        manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        return set(manifest["labels"]) >= set(self.truth.values())


CORPORA = ("banking77", "seed")


def default_corpus() -> str:
    """Banking77 if it is in ../shared/data, else the seed corpus."""
    return "banking77" if (BANKING77 / "test.csv").is_file() else "seed"


def load_corpus(name: str) -> Corpus:
    """The test split of Banking77, or the holdout of the intent seed corpus. Raises OSError without Banking77."""
    if name == "banking77":
        return Corpus(name, "Banking77 test", {row["text"]: row["label"] for row in _rows(BANKING77 / "test.csv")})
    return Corpus(name, "the seed holdout", {row["text"]: row["label"] for row in _seed_holdout("intent")})


def corpus_of(bundle: Path) -> Corpus:
    """The texts to ask the bundle's model: those of its labels, else those of `default_corpus`.

    How many of them are answered early depends on whether the model was trained on texts like them.
    """
    default = load_corpus(default_corpus())
    return next((one for one in (default, load_corpus("seed")) if one.is_of(bundle)), default)


def load_texts() -> tuple[list[str], str]:
    """The texts of `default_corpus`, for a load whose labels do not matter; and the name of their source."""
    corpus = load_corpus(default_corpus())
    return corpus.texts, corpus.title


def seed_texts(task: str) -> list[str]:
    """The holdout of a classifier's seed corpus."""
    return [row["text"] for row in _seed_holdout(task)]


def _seed_holdout(task: str) -> list[dict[str, str]]:
    return [row for row in _rows(SEED / f"{task}.csv") if row["split"] == "holdout"]


def write_corpus(folder: Path, file: Path) -> None:
    """Write a public set's train.csv and test.csv to one file, whose column `split` makes the second the holdout."""
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["text", "label", "split"])
        for part, split in (("train", "train"), ("test", "holdout")):
            writer.writerows([row["text"], row["label"], split] for row in _rows(folder / f"{part}.csv"))


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def distinct(texts: Sequence[str], count: int) -> list[str]:
    """`count` different texts; if the corpus has fewer, pairs of its texts are added."""
    found = dict.fromkeys(texts)
    draw = random.Random(0)
    while len(found) < count:
        found[" ".join(draw.sample(list(texts), 2))] = None
    return list(found)[:count]


def zipf(texts: Sequence[str], draws: int, exponent: float = 1.1) -> list[str]:
    """`draws` random texts; the text of rank r is drawn with a probability in proportion to 1 / r^exponent."""
    return random.Random(1).choices(texts, zipf_weights(len(texts), exponent), k=draws)


def zipf_weights(count: int, exponent: float = 1.1) -> list[float]:
    """The weight of each of `count` ranks, most frequent first; they do not add up to 1."""
    return [rank**-exponent for rank in range(1, count + 1)]


def mixed_lengths(texts: Sequence[str], tokens: Callable[[str], int], count: int) -> list[tuple[str, str]]:
    """`count` pairs of kind and text in random order: 90 % `short` (up to SHORT_TOKENS tokens), 10 % `long`.

    Lengths are uniform within their kind. The texts consist of words of one token each, so that lengths are exact.
    """
    special = tokens("")
    words = sorted({word for text in texts for word in text.lower().split() if tokens(word) == special + 1})
    draw = random.Random(2)
    pairs = []
    for number in range(count):
        kind = "long" if number % 10 == 9 else "short"
        shortest, longest = (SHORT_TOKENS + 1, LONG_TOKENS) if kind == "long" else (special + 1, SHORT_TOKENS)
        pairs.append((kind, " ".join(draw.choices(words, k=draw.randint(shortest, longest) - special))))
    draw.shuffle(pairs)
    return pairs


def rankings(count: int, candidates: int, history: int) -> list[bytes]:
    """Bodies of recommendation requests: random items of the seed catalogue, each with its text and price."""
    draw = random.Random(3)
    bodies = []
    for number in range(count):
        drawn = draw.sample(_catalogue(), candidates + history)
        user = {"id": f"u{number}", "history": drawn[candidates:]}
        bodies.append(json.dumps({"user": user, "candidates": drawn[:candidates], "top_k": 10}).encode())
    return bodies


def whole_catalogue(candidates: int) -> list[bytes]:
    """Bodies of recommendation requests that contain every item of the catalogue once, `candidates` in each."""
    items = _catalogue()
    return [json.dumps({"candidates": items[at : at + candidates]}).encode() for at in range(0, len(items), candidates)]


@cache
def _catalogue() -> list[dict[str, Any]]:
    return [
        {"id": row["id"], "text": f"{row['title']}. {row['description']}", "features": {"price": float(row["price"])}}
        for row in _rows(SEED / "catalogue.csv")
    ]
