"""A user's own corpus, small enough to be trained in seconds: two labels, and corrections that bring a third."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np

from models.data.dataset import Example

THINGS = {
    "astronomy": ("telescope", "comet", "galaxy", "eclipse", "planet", "nebula"),
    "gardening": ("tulips", "compost", "hedge", "seedlings", "greenhouse", "lawn"),
    "cooking": ("soup", "risotto", "oven", "pancakes", "stew", "frying pan"),
}
SENTENCES = (
    "tell me about the {}", "I spent all weekend with the {}", "my {} looks wonderful this year",
    "what is the best time for the {}?", "photos of the {} please",
)  # fmt: skip
OWN = [
    (sentence.format(thing), label)
    for label in ("astronomy", "gardening")
    for thing in THINGS[label]
    for sentence in SENTENCES
]
CORRECTIONS = tuple(Example(sentence.format(thing), "cooking") for thing in THINGS["cooking"] for sentence in SENTENCES)


WORDS = sorted({word for text, _ in OWN for word in re.findall("[a-z]{2,}", text.lower())})
"""of which each is one token of a tiny BERT (bases.py)"""


def labelled_texts(labels: int, each: int, *, words: int = 5, seed: int = 0) -> list[Example]:
    """Texts of `words` words, of which the third tells the label."""
    rng = np.random.default_rng(seed)
    found = []
    for label in range(labels):
        for _ in range(each):
            text = [WORDS[labels + int(i)] for i in rng.integers(0, len(WORDS) - labels, words)]
            text[min(2, words - 1)] = WORDS[label]
            found.append(Example(" ".join(text), f"label {label}"))
    return found


def own_data(folder: Path) -> Path:
    file = folder / "own.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("text", "label"), *OWN])
    return file
