"""Locustfile of a market-news monitor. With Locust's own page: locust -f loadtests/locust/market_open.py --host http://..."""

from loadtests.locust.client import judged_by
from loadtests.locust.scenarios import SCENARIOS
from loadtests.locust.users.market import Analyst, Feed, Reader

__all__ = ["Analyst", "Feed", "Reader"]

judged_by(SCENARIOS["market_open"])
