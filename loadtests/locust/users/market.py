"""A market-news monitor: feeds that deliver in bulk, analysts who ask about one headline, a page of trends."""

from __future__ import annotations

import itertools
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import gevent
from locust import between, events, task
from locust.env import Environment

from loadtests.locust.bodies.headlines import Headlines
from loadtests.locust.client import FlywheelUser, seen_in
from loadtests.locust.scenarios import ALERTS, BULK, HEADLINE, TOPICS, TRENDS

OPEN_FROM, OPEN_UNTIL = 0.3, 0.5
"""the part of a run, or of each two minutes of a longer one, in which the market opens: feeds deliver without pause"""
_PERIOD_S = 120.0
_AFTERMATH_S = 5.0  # what was sent in the surge may still wait
_QUIET_S = (2.0, 5.0)
_NUMBERS = itertools.count()
_MODEL = "/v2/models/sentiment"


@events.test_start.add_listener
def start_clock(environment: Environment, **_: Any) -> None:
    """Begin the market's day with the run."""
    seen, period_s = seen_in(environment), min(environment.parsed_options.run_time or _PERIOD_S, _PERIOD_S)

    def tick() -> None:
        began = time.monotonic()
        while True:
            through_s = (time.monotonic() - began) % period_s
            opens, ends = OPEN_FROM * period_s, OPEN_UNTIL * period_s
            seen.surges = opens <= through_s < ends
            seen.overloads = opens <= through_s < ends + _AFTERMATH_S
            gevent.sleep(0.1)

    gevent.spawn(tick)


class Feed(FlywheelUser):
    """Delivers what it has gathered every few seconds; at the open as fast as the server takes it."""

    weight = 4

    def on_start(self) -> None:
        self.headlines = Headlines(next(_NUMBERS))

    def wait_time(self) -> float:
        return 0.0 if self.seen.surges else random.uniform(*_QUIET_S)

    @task
    def deliver(self) -> None:
        body = self.headlines.bulk()
        for document in body["documents"]:
            self.seen.text("sentiment", document["text"])
        self.ask(BULK, f"{_MODEL}/predict", body)


class Analyst(FlywheelUser):
    """Asks about one headline at a time."""

    weight = 4
    wait_time = between(0.5, 2)

    def on_start(self) -> None:
        self.headlines = Headlines(next(_NUMBERS))

    @task
    def ask_about_one(self) -> None:
        document = self.headlines.document()
        self.seen.text("sentiment", document["text"])
        self.ask(HEADLINE, f"{_MODEL}/predict", document)


class Reader(FlywheelUser):
    """Has the page with topics, trends and alerts open, which reads them anew."""

    fixed_count = 2
    wait_time = between(2, 4)

    def on_start(self) -> None:
        self.headlines = Headlines(next(_NUMBERS))

    @task
    def refresh(self) -> None:
        found = self.ask(TOPICS, "/v2/opinion/topics")
        topic = self.headlines.choose([one["topic"] for one in found["topics"]] if found else [])
        start = datetime.now(UTC) - timedelta(hours=24)
        query = {"start": start.isoformat(timespec="seconds"), "step": "15m"} | ({"topic": topic} if topic else {})
        self.ask(TRENDS, f"/v2/opinion/trends?{urlencode(query)}")
        self.ask(ALERTS, "/v2/opinion/alerts")
