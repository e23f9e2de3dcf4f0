"""Locustfile of a shop's product pages. With Locust's own page: locust -f loadtests/locust/product_page.py --host http://..."""

from loadtests.locust.client import judged_by
from loadtests.locust.scenarios import SCENARIOS
from loadtests.locust.users.shop import Visitor

__all__ = ["Visitor"]

judged_by(SCENARIOS["product_page"])
