"""The controller's interface to worker processes, for jobs of minutes whose imports a serving process must not have."""

from __future__ import annotations

from typing import Any, Protocol

from models.retraining.plan import Plan

ACTOR = "the controller"
"""the actor of automatic changes in the audit log"""


class Workers(Protocol):
    """Starts jobs in separate processes. Each `start_*` returns at once, with a handle for `poll`."""

    def start_retraining(self, plan: Plan, owner: str) -> Any:
        """`owner` is that of models.retraining.run.retrain. The result is a `Result`."""

    def start_drift_test(self, task: str) -> Any:
        """The result is a `Drift` of each test by name, as models.evaluation.drift.drift_in_log returns them."""

    def start_registry_sync(self, task: str) -> Any:
        """The result is True when MLflow's aliases match the release. Returns None without MLflow: nothing to do."""

    def start_sentence_encoder(self) -> Any:
        """Makes the knowledge base's encoder. The result is "", or a sentence about why it could not be made."""

    def poll(self, handle: Any) -> Any:
        """The job's result; None while it runs; a failed `Result` when its process was killed."""
