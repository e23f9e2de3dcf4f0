"""What the controller has done elsewhere: minutes of work, in processes that may import what a server must not."""

from __future__ import annotations

from typing import Any, Protocol

from models.retraining.plan import Plan

ACTOR = "the controller"
"""who moves a version or retrains, in the audit log, when it was nobody's request"""


class Workers(Protocol):
    """Begins work in processes of its own. Each `start_*` returns at once, with a handle for `poll`."""

    def start_retraining(self, plan: Plan) -> Any:
        """The result is a `Result`."""

    def start_drift_test(self, task: str) -> Any:
        """The result is a sentence that says what has drifted, "" when nothing has."""

    def start_registry_sync(self, task: str) -> Any:
        """The result is True when MLflow's aliases say what the release says. None without MLflow: nothing to do."""

    def poll(self, handle: Any) -> Any:
        """The result; None while the work goes on; a failed `Result` when its process was killed."""
