"""The scenarios: how many users for how long, and the bounds of their answers. Importing this needs no Locust."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from loadtests.locust.thresholds import Threshold

FOLDER = Path(__file__).parent

# Names of requests, as reports show them.
INTENT, SEARCH, LABEL, REVIEW = "intent: predict", "knowledge: search", "intent: feedback", "intent: review list"
HEADLINE, BULK, TRENDS = "sentiment: predict", "sentiment: bulk of documents", "opinion: trends"
ALERTS, TOPICS = "opinion: alerts", "opinion: topics"
RANK, CLICKS = "recommendation: predict", "recommendation: feedback"
LOOKS, CHANGES = "operator: looks", "operator: changes"

_DESK = (
    Threshold(INTENT, 100, 250),
    Threshold(SEARCH, 250, 500),
    Threshold(LABEL, 250, 500),
    Threshold(REVIEW, 2_000, 4_000),
)
_MARKET = (
    Threshold(HEADLINE, 500, 1_200, max_refused=0.5),
    Threshold(BULK, 1_500, 2_500, max_refused=0.8),
    Threshold(TRENDS, 500, 1_000),
    Threshold(ALERTS, 500, 1_000),
    Threshold(TOPICS, 500, 1_000),
)
_SHOP = (
    Threshold(RANK, 150, 300),
    Threshold(CLICKS, 250, 500),
)


@dataclass(frozen=True)
class Scenario:
    """`minutes` is the length of a run, or the most that it takes if the scenario ends by itself."""

    name: str
    title: str
    users: int
    minutes: float
    thresholds: tuple[Threshold, ...]
    ends_by_itself: bool = False

    @property
    def locustfile(self) -> Path:
        return FOLDER / f"{self.name}.py"


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        scenario.name: scenario
        for scenario in (
            Scenario("support_desk", "conversations, agents who correct and search, a review list", 40, 2, _DESK),
            Scenario("market_open", "documents in bulk with a surge at the open, a page of trends", 16, 2, _MARKET),
            Scenario("product_page", "20 to 100 candidates for each visitor, clicks as feedback", 40, 2, _SHOP),
            Scenario(
                "everything",
                "all of these at once, while a model is retrained and versions move",
                48,
                20,
                (*_DESK, *_MARKET, *_SHOP),
                ends_by_itself=True,
            ),
        )
    }
)
