"""Customers' messages to a support desk, with the intent that each has."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

from loadtests.locust.bodies import seed
from loadtests.texts import zipf_weights

COMMON = 0.25
"""share of the messages that are sent as others send them too; the rest have details of their own"""
CORRECTED = 0.4
"""share of the tickets of which an agent says what they meant"""
_NAMES = ("Ann", "Bo", "Chloe", "Dimitri", "Ewa", "Farid", "Greta", "Hugo", "Imani", "Jon", "Keiko", "Lars", "Mina")
_OPENINGS = ("Hi,", "Hello,", "Good morning,", "hey", "Hi there, {name} here.", "Sorry to bother you,", "", "", "")
_DETAILS = (
    "It is about order {order}.",
    "My order number is #{order}.",
    "I ordered on {day} May.",
    "I paid {amount} EUR.",
    "Invoice {invoice}, if that helps.",
    "Order {order}, {amount} EUR, ordered on {day} May.",
    "Please answer before {hour}:30.",
)
_FOLLOW_UPS = ("Is there any news on this?", "and how long will that take", "ok thanks", "Can you check again please?")


@dataclass(frozen=True)
class Message:
    """A message with the label that an agent would give it; None where only the conversation tells."""

    text: str
    label: str | None


@cache
def _by_frequency() -> tuple[list[tuple[str, str]], list[float]]:
    """Text and label of the corpus, the most frequent first, and their cumulated weights."""
    known = seed.labelled("intent")
    return random.Random(0).sample(known, len(known)), list(accumulate(zipf_weights(len(known))))


class Messages:
    """Draws customers and their messages. The same seed draws the same ones."""

    def __init__(self, number: int):
        self._draw = random.Random(number)
        self._known, self._weights = _by_frequency()

    def customer(self) -> tuple[str, str]:
        """A customer's id and first name."""
        return f"customer-{self._draw.randrange(50_000)}", self._draw.choice(_NAMES)

    def conversation(self, name: str) -> list[Message]:
        """One to four messages of one customer: a question, then mostly what belongs to it."""
        messages = [self.message(name)]
        while len(messages) < 4 and self._draw.random() < 0.45:
            if self._draw.random() < 0.4:
                messages.append(Message(self._draw.choice(_FOLLOW_UPS), None))
            else:
                messages.append(self.message(name))
        return messages

    def is_corrected(self) -> bool:
        """Whether the agent says what the message meant."""
        return self._draw.random() < CORRECTED

    def message(self, name: str) -> Message:
        """A message of the seed corpus: one in four as it is, by Zipf's law, the others with details of their own."""
        if self._draw.random() < COMMON:
            return Message(*self._draw.choices(self._known, cum_weights=self._weights)[0])
        text, label = self._draw.choice(self._known)
        opening = self._draw.choice(_OPENINGS).format(name=name)
        detail = self._draw.choice(_DETAILS).format(
            order=self._draw.randrange(10_000, 1_000_000),
            invoice=f"R-{self._draw.randrange(10_000, 100_000)}",
            amount=f"{self._draw.uniform(5, 900):.2f}",
            day=self._draw.randrange(1, 32),
            hour=self._draw.randrange(8, 20),
        )
        return Message(f"{opening} {text} {detail}".strip(), label)


def predict(message: Message, name: str, *, knowledge: bool = False) -> dict[str, Any]:
    """A predict request of intent; the knowledge base is asked for every text, or where the server thinks fit."""
    return {"text": message.text, "slots": {"customer_name": name}} | ({"knowledge": True} if knowledge else {})


def search(message: Message) -> dict[str, Any]:
    """A search of the knowledge base."""
    return {"text": message.text, "limit": 5}


def correction(prediction_id: str, label: str, *, consent: bool) -> dict[str, Any]:
    """What an agent says that the message meant."""
    return {"id": prediction_id, "label": label, "source": "support-desk", "consent": consent}
