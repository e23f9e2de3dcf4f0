"""Keeps a replica at its task's release file, whatever becomes of a release on the way."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from models.home import release_file
from models.releases.release import Release, read_release

log = logging.getLogger("flywheel.replica")

RETRY_AFTER_S = 10.0  # the disk may be back, or somebody may have mended the bundle; and reading one costs a second

Apply = Callable[[Release], Awaitable[str]]
"""Serves the release. Returns a sentence about what of it could not be loaded, else ""; raises when nothing could."""


class ReleaseWatcher:
    """Calls `apply` when the release file of `task` has changed, and again, after a pause, as long as that fails."""

    def __init__(self, home: Path, task: str, apply: Apply):
        self._home, self._task, self._apply = home, task, apply
        # Modification times of the file. None is of no file: what was loaded at the start is looked at once more, since
        # the file may have changed meanwhile.
        self._applied: int | None = None
        self._failed: int | None = None
        self._retry_at = 0.0

    async def step(self) -> None:
        """Look once. Never raises: a replica whose watcher died would serve one release for ever."""
        changed = _modified(release_file(self._home, self._task))
        if changed == self._applied or (changed == self._failed and time.monotonic() < self._retry_at):
            return
        try:
            problem = await self._apply(read_release(self._home, self._task))
        except Exception as error:  # of the disk, the memory, or onnxruntime, whose errors are of a dozen types
            problem = f"the release is not applied: {one_line(error)}"
        if not problem:
            self._applied = changed
            return
        if changed != self._failed:  # logged once
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
