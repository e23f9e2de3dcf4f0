"""Locustfile of all users at once, with an operator who has a model retrained and moves its versions."""

from loadtests.locust.client import judged_by
from loadtests.locust.scenarios import SCENARIOS
from loadtests.locust.users.desk import Agent, Customer, TeamLead
from loadtests.locust.users.market import Analyst, Feed, Reader
from loadtests.locust.users.operator import Operator
from loadtests.locust.users.shop import Visitor

__all__ = ["Agent", "Analyst", "Customer", "Feed", "Operator", "Reader", "TeamLead", "Visitor"]

judged_by(SCENARIOS["everything"])
