"""A support desk: customers who write, agents who answer and correct, and who leads them."""

from __future__ import annotations

import itertools
from typing import Any

from locust import between, task

from loadtests.locust.bodies import messages
from loadtests.locust.bodies.messages import Message, Messages
from loadtests.locust.client import FlywheelUser
from loadtests.locust.scenarios import INTENT, LABEL, REVIEW, SEARCH

_NUMBERS = itertools.count()
_MODEL = "/v2/models/intent"


class _AtTheDesk(FlywheelUser):
    abstract = True

    def on_start(self) -> None:
        self.messages = Messages(next(_NUMBERS))

    def predict(self, message: Message, user: str, name: str, *, knowledge: bool = False) -> Any:
        self.seen.text("intent", message.text)
        body = messages.predict(message, name, knowledge=knowledge)
        return self.ask(INTENT, f"{_MODEL}/predict", body, user=user)


class Customer(_AtTheDesk):
    """Writes one to four messages, seconds apart; the next customer follows."""

    weight = 8
    wait_time = between(0.5, 3)

    @task
    def converse(self) -> None:
        user, name = self.messages.customer()
        for message in self.messages.conversation(name):
            self.predict(message, user, name)
            self.wait()


class Agent(_AtTheDesk):
    """Takes a ticket that was handed off: reads it, searches the knowledge base, and often says what it meant."""

    weight = 2
    wait_time = between(1, 4)

    @task
    def handle_ticket(self) -> None:
        user, name = self.messages.customer()
        message = self.messages.message(name)
        answer = self.predict(message, user, name, knowledge=True)
        self.ask(SEARCH, "/v2/knowledge/search", messages.search(message))
        if answer and message.label is not None and self.messages.is_corrected():
            self.wait()  # reading takes seconds; a correction within half a second waits until its answer is logged
            body = messages.correction(answer["id"], message.label, consent=self.consents)
            self.ask(LABEL, f"{_MODEL}/feedback", body, status=202)


class TeamLead(FlywheelUser):
    """Looks at what to label next."""

    fixed_count = 1
    wait_time = between(5, 10)

    @task
    def read_review_list(self) -> None:
        self.ask(REVIEW, "/v2/review/intent?limit=20", operator=True)
