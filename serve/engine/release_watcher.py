"""Applies changes of a task's release file to a replica, and retries those that fail."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path

from models.home import release_file
from models.releases.release import Release, read_release

log = logging.getLogger("flywheel.replica")

RETRY_AFTER_S = 10.0  # the disk may be back or the bundle repaired by then; loading a bundle takes a second

Apply = Callable[[Release], Awaitable[str]]
"""Serves the release. Returns a sentence about versions that failed to load, else ""; raises when the champion did."""


class ReleaseWatcher:
    """Calls `apply` when the release file of `task` has changed, and retries every `RETRY_AFTER_S` while that fails.

    It reads the disk in `executor`: one that does not answer must not stop the event loop.
    """

    def __init__(self, home: Path, task: str, apply: Apply, executor: Executor):
        self._home, self._task, self._apply, self._executor = home, task, apply, executor
        # Modification times of the file. None at first, so that the release is applied once more after the start, since
        # the file may have changed meanwhile.
        self._applied: int | None = None
        self._failed: int | None = None
        self._retry_at = 0.0

    async def step(self) -> None:
        """Check the file once. Never raises: a replica whose watcher has died would keep its release forever."""
        loop = asyncio.get_running_loop()
        changed = await loop.run_in_executor(self._executor, _modified, release_file(self._home, self._task))
        if changed == self._applied or (changed == self._failed and time.monotonic() < self._retry_at):
            return
        try:
            release = await loop.run_in_executor(self._executor, read_release, self._home, self._task)
            problem = await self._apply(release)
        except Exception as error:  # of the disk, memory or onnxruntime, which has a dozen types of errors
            problem = f"the release is not applied: {one_line(error)}"
        if not problem:
            self._applied = changed
            return
        if changed != self._failed:  # log each failure once, not at every retry
            log.error("%s: %s", self._task, problem)
        self._failed, self._retry_at = changed, time.monotonic() + RETRY_AFTER_S


def one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _modified(path: Path) -> int:
    """The file's modification time in nanoseconds; 0 where it cannot be read."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
