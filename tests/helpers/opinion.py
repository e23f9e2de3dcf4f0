"""Documents of opinion monitoring in few words."""

from __future__ import annotations

import itertools
import random
from datetime import timedelta
from typing import Any

from models.feedback.store import Store
from models.feedback.store.opinion import Absorbed
from models.feedback.types import NewDocument
from models.opinion.types import Document
from tests.helpers.store_fixtures import NOW

_NUMBERS = itertools.count()
_WHO = ("Velmora", "Kestrand Bank", "Orlanda Energy", "Brantic Foods", "Tarnwick Motors", "Harbrook Retail")
_WHAT = (
    "beats estimates",
    "cuts outlook",
    "names new finance chief",
    "faces probe",
    "to close plant",
    "raises dividend",
)


def new_document(text: str, id_: str | None = None, task: str = "sentiment", **changes: Any) -> NewDocument:
    """A negative text about airlines, sent and published now; without `id_`, with an id of its own."""
    user = changes.pop("user", None)
    values: dict[str, Any] = {
        "document_id": id_ or f"document {next(_NUMBERS)}",
        "text": text, "published": NOW, "topics": ("airlines",), "label": "negative",
        "score": 0.9, "prediction_id": "p1", "at": NOW,
    }  # fmt: skip
    return NewDocument(task, Document(**values | changes), user)


def documents(chance: random.Random, count: int, days: float = 5) -> list[NewDocument]:
    """Different documents of a few days, some of them copies."""
    found = []
    for i in range(count):
        text = (
            f"{chance.choice(_WHO)} {chance.choice(_WHAT)} in {chance.choice(('Europe', 'Asia', 'Africa'))} this year"
        )
        found.append(
            new_document(
                text, f"of these {i}", published=NOW + timedelta(days=chance.uniform(-days, 0)),
                topics=tuple(chance.sample(("airlines", "banks", "energy"), chance.randint(1, 2))),
                label=chance.choice(("positive", "neutral", "negative")),
            )
        )  # fmt: skip
    return found


def send(store: Store, *items: NewDocument) -> None:
    store.predictions.log([], items)


def absorb_all(store: Store, limit: int = 1000, task: str = "sentiment") -> list[Absorbed]:
    """Count all that waits, so many documents at a time."""
    found = []
    while batch := store.opinion.next_batch(task, limit):
        found.append(store.opinion.absorb(task, batch, timedelta(hours=72)))
    return found
