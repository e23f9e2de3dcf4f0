"""An operator who has a model retrained over HTTP while it serves, and then moves versions forward and back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
from locust import constant, task
from locust.exception import StopUser

from loadtests.locust.client import FlywheelUser
from loadtests.locust.scenarios import CHANGES, LOOKS
from loadtests.locust.thresholds import Fact

RETRAINING, MOVES = "retraining", "moves of versions"
_CORRECTIONS, _CORRECTIONS_WITHIN_S = 300, 180  # to learn from, before the retraining is requested
_MAX_RETRAINING_S, _MAX_CANARY_S = 900, 300
_BETWEEN_MOVES_S = 10.0
_REASON = {"actor": "load test", "reason": "the scenario everything"}


class Operator(FlywheelUser):
    """Waits for corrections, requests a retraining, waits for its end and its canary, moves versions, ends the run."""

    fixed_count = 1
    wait_time = constant(1)

    def on_start(self) -> None:
        self._base = f"/v2/repository/models/{self.environment.parsed_options.retrain}"
        for name in (RETRAINING, MOVES):
            self.seen.note(Fact(name, False, "the run ended first; give it more --minutes"))

    @task
    def work(self) -> None:
        for step in (self._retrain, self._move_versions):
            self.seen.note(step())
        gevent.spawn(self.environment.runner.quit)
        raise StopUser

    def _retrain(self) -> Fact:
        corrections = self._wait_for_corrections()
        requested = self._operate("retrain", _REASON, status=202)
        if requested is None:
            return Fact(RETRAINING, False, "its request was refused")
        began = time.monotonic()
        run = self._eventually(lambda: self._ended(requested["request"]), _MAX_RETRAINING_S)
        if run is None:
            return Fact(RETRAINING, False, f"it had not ended after {_MAX_RETRAINING_S} s")
        seconds = time.monotonic() - began
        sentence = f"{run['outcome']} after {seconds:.0f} s, {corrections} corrections waited. {run['sentence']}"
        return Fact(RETRAINING, run["state"] == "done", sentence)

    def _wait_for_corrections(self) -> int:
        """How many wait, once there are enough or it has taken too long."""
        path = self._base.replace("/repository", "") + "/feedback"
        waiting = 0

        def enough() -> bool:
            nonlocal waiting
            counts = self.ask(LOOKS, path)
            waiting = counts["states"].get("waiting", 0) if counts else 0
            return waiting >= _CORRECTIONS

        self._eventually(enough, _CORRECTIONS_WITHIN_S)
        return waiting

    def _ended(self, request: int) -> Any:
        """The request for a retraining once its run is over."""
        found = self._operate("retrain")
        runs = [run for run in found["requests"] if run["id"] == request] if found else []
        return next((run for run in runs if run["state"] in ("done", "failed")), None)

    def _move_versions(self) -> Fact:
        """Wait for the canary's end, then promote the version that does not serve, and roll it back."""
        self._eventually(lambda: not self._with_alias("challenger"), _MAX_CANARY_S)
        others = self._with_alias(None)
        if not others:
            return Fact(MOVES, False, "there is only one version, so none could be moved")
        version = others[0]["version"]
        for move in ("promote", "rollback"):
            gevent.sleep(_BETWEEN_MOVES_S)
            if self._operate(move, {"version": version, **_REASON}) is None:
                return Fact(MOVES, False, f"version {version}: {move} was refused")
        gevent.sleep(_BETWEEN_MOVES_S)
        answered = self.seen.versions[self.environment.parsed_options.retrain]
        sentence = f"version {version} was promoted and rolled back; {len(answered)} versions answered"
        return Fact(MOVES, len(answered) > 1, sentence)

    def _with_alias(self, alias: str | None) -> list[Any]:
        """The versions with this alias, newest first."""
        found = self._operate("versions")
        return [row for row in found["versions"] if row["alias"] == alias] if found else []

    def _operate(self, path: str, body: Any = None, *, status: int = 200) -> Any:
        name = LOOKS if body is None else CHANGES
        return self.ask(name, f"{self._base}/{path}", body, status=status, operator=True)

    def _eventually(self, condition: Callable[[], Any], seconds: float) -> Any:
        """What `condition` returns once it is true; None when it is not within `seconds`."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := condition():
                return found
            gevent.sleep(2)
        return None
