"""The seed corpora as the bodies use them. Everything is read once, by `load` before the first request."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any

from loadtests.texts import SEED

_HISTORY = 30  # newest chosen items that a page knows of a user


def load() -> None:
    """Read all: a client that reads files while it waits for an answer would count that time as the server's."""
    labelled("intent"), labelled("sentiment"), items(), histories()


@cache
def labelled(task: str) -> tuple[tuple[str, str], ...]:
    """(text, label) of all rows of a classifier's seed corpus."""
    return tuple((row["text"], row["label"]) for row in _rows(f"{task}.csv"))


@cache
def items() -> tuple[dict[str, Any], ...]:
    """The catalogue as requests name items, with the `category`, which no request has."""
    return tuple(
        {
            "id": row["id"],
            "text": f"{row['title']}. {row['description']}",
            "features": {"price": float(row["price"])},
            "category": row["category"],
        }
        for row in _rows("catalogue.csv")
    )


@cache
def histories() -> tuple[Sequence[dict[str, str]], ...]:
    """What each user of the seed's shop chose, oldest first, as a request names it: ids and events."""
    chosen: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in _rows("behaviour.csv"):
        if row["event"] != "view":
            chosen[row["user_id"]].append({"id": row["item_id"], "event": row["event"]})
    return tuple(history[-_HISTORY:] for history in chosen.values())


def _rows(name: str) -> list[dict[str, str]]:
    with (SEED / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
