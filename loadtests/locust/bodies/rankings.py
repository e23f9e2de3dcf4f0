"""Product pages: which items are ranked for whom, and which of them are clicked."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from loadtests.locust.bodies import seed

MIN_CANDIDATES, MAX_CANDIDATES, SHOWN = 20, 100, 10
NEW_ITEMS = 0.02
"""share of the candidates that the model was not trained with, so that the encoder reads their texts"""
_FAVOURITES = 3  # categories that a user chose most often
_FIELDS = ("id", "text", "features")


@dataclass(frozen=True)
class Visit:
    """A visitor of a product page. `favourites` are categories."""

    user: str
    request: dict[str, Any]
    favourites: frozenset[str]


class Rankings:
    """Draws visits and clicks. The same seed draws the same ones."""

    def __init__(self, number: int):
        self._draw = random.Random(number)
        self._items = seed.items()
        self._category = {item["id"]: item["category"] for item in self._items}

    def visit(self) -> Visit:
        """A predict request of recommendation: one in five visitors is new, the others have a history."""
        user = f"shopper-{self._draw.randrange(20_000)}"
        past = [] if self._draw.random() < 0.2 else self._draw.choice(seed.histories())
        drawn = self._draw.sample(self._items, self._draw.randint(MIN_CANDIDATES, MAX_CANDIDATES))
        request: dict[str, Any] = {
            "user": {"id": user, "history": list(past)},
            "candidates": [self._candidate(item) for item in drawn],
            "context": {"hour": float(self._draw.randrange(24))},
            "top_k": SHOWN,
        }
        chance = self._draw.random()
        if chance < 0.2:
            request["explore"] = 0.3
        elif chance < 0.3:
            request["diversity"] = 0.3
        elif chance < 0.35:
            request["explain"] = True
        often = Counter(self._category[item["id"]] for item in past).most_common(_FAVOURITES)
        return Visit(user, request, frozenset(category for category, _ in often))

    def _candidate(self, item: dict[str, Any]) -> dict[str, Any]:
        candidate = {field: item[field] for field in _FIELDS}
        if self._draw.random() < NEW_ITEMS:
            edition = self._draw.randrange(100_000)
            candidate |= {"id": f"new-{edition}", "text": f"{item['text']} Edition {edition}."}
        return candidate

    def events(self, visit: Visit, shown: list[str]) -> list[tuple[str, str]]:
        """(item id, event) of what the visitor does with the items `shown`, best first; often nothing.

        Upper items are seen by more, and items of a favourite category are clicked by more who see them.
        """
        found = []
        for place, item in enumerate(shown):
            likes = self._category.get(item) in visit.favourites
            if self._draw.random() < (0.2 if likes else 0.05) / (1 + place / 5):
                found.append((item, "buy" if self._draw.random() < 0.15 else "click"))
        return found


def corrections(prediction_id: str, events: list[tuple[str, str]], *, consent: bool) -> dict[str, Any]:
    """The feedback of one visit: each event on an item of the ranking."""
    return {
        "feedback": [
            {"id": prediction_id, "item_id": item, "event": event, "source": "shop", "consent": consent}
            for item, event in events
        ]
    }
