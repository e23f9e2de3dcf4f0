"""A user's own corpus, small enough to be trained in seconds: two labels, and corrections that bring a third."""

from __future__ import annotations

import csv
from pathlib import Path

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


def own_data(folder: Path) -> Path:
    file = folder / "own.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("text", "label"), *OWN])
    return file
