"""Retrainings that a test begins and ends as it likes."""

from __future__ import annotations

from typing import Any

from models.retraining.plan import Plan


class Runs:
    """Stands where Ray's workers are: what was begun, and results as the test gives them."""

    def __init__(self) -> None:
        self.begun: list[Plan] = []
        self.owners: list[str] = []
        self.followed: list[str] = []
        self.drift: Any = None
        self.result: Any = None

    def start_retraining(self, plan: Plan, owner: str) -> Plan:
        self.begun.append(plan)
        self.owners.append(owner)
        return plan

    def start_drift_test(self, task: str) -> Any:
        return self.drift

    def start_registry_sync(self, task: str) -> str:
        self.followed.append(task)
        return task

    def poll(self, handle: Any) -> Any:
        return self.result
