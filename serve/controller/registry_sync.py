"""Keeps MLflow's aliases champion and challenger in line with the release, whoever changed it."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from models.releases.release import Release, read_aliased, read_release
from serve.controller.workers import Workers

log = logging.getLogger("flywheel.controller")

RETRY_AFTER_S = 60.0  # after a failure, since each attempt starts a process that imports MLflow


class RegistrySync:
    """Starts a worker that sets one task's aliases when they differ from its release."""

    def __init__(self, task: str, home: Path, workers: Workers):
        self._task, self._home, self._workers = task, home, workers
        self._run: Any = None
        self._retry_at = 0.0
        self._synced: Release | None = None
        """the release that the aliases are assumed to match when none is recorded: the first one seen"""

    def step(self) -> None:
        """Raises ReleaseError when the task has no readable release."""
        if self._run is not None:
            if (result := self._workers.poll(self._run)) is None:
                return
            self._run = None
            if result is not True:
                self._retry_at = time.monotonic() + RETRY_AFTER_S
                log.warning("%s: MLflow's aliases could not be set to the release", self._task)
        release = read_release(self._home, self._task)
        self._synced = read_aliased(self._home, self._task) or self._synced or release
        if release != self._synced and time.monotonic() >= self._retry_at:
            self._run = self._workers.start_registry_sync(self._task)
