"""Locustfile of a support desk. With Locust's own page: locust -f loadtests/locust/support_desk.py --host http://..."""

from loadtests.locust.client import judged_by
from loadtests.locust.scenarios import SCENARIOS
from loadtests.locust.users.desk import Agent, Customer, TeamLead

__all__ = ["Agent", "Customer", "TeamLead"]

judged_by(SCENARIOS["support_desk"])
