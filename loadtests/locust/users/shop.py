"""A shop's product pages: visitors see a ranking, and click and buy."""

from __future__ import annotations

import itertools

from locust import between, task

from loadtests.locust.bodies.rankings import Rankings, corrections
from loadtests.locust.client import FlywheelUser
from loadtests.locust.scenarios import CLICKS, RANK

_NUMBERS = itertools.count()
_MODEL = "/v2/models/recommendation"


class Visitor(FlywheelUser):
    """Opens a page, looks at it, and sometimes clicks; the next visitor follows."""

    weight = 8
    wait_time = between(0.5, 2)

    def on_start(self) -> None:
        self.rankings = Rankings(next(_NUMBERS))

    @task
    def visit(self) -> None:
        visit = self.rankings.visit()
        answer = self.ask(RANK, f"{_MODEL}/predict", visit.request, user=visit.user)
        if not answer:
            return
        events = self.rankings.events(visit, [item["id"] for item in answer["predictions"]])
        if events:
            self.wait()
            body = corrections(answer["id"], events, consent=self.consents)
            self.ask(CLICKS, f"{_MODEL}/feedback", body, user=visit.user, status=202)
