"""Has a replica follow its task's release file, whatever becomes of a release on the way."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from models.home import release_file
from models.releases.release import Release, read_release

log = logging.getLogger("flywheel.replica")

TRY_AGAIN_S = 10.0  # the disk may be back, or somebody may have mended the bundle; and reading one costs a second

TakeUp = Callable[[Release], Awaitable[str]]
"""Serves the release. Returns a sentence about what of it could not be loaded, else ""; raises when nothing could."""


class Follower:
    """Looks at the file and calls `take_up` when it has changed; again, after a pause, as long as that fails."""

    def __init__(self, home: Path, task: str, take_up: TakeUp):
        self._home, self._task, self._take_up = home, task, take_up
        # Times of the file. None is of no file: what was loaded at the start is looked at once more, for the file may
        # have changed meanwhile.
        self._served: int | None = None
        self._failed: int | None = None
        self._again = 0.0

    async def look(self) -> None:
        """Never raises: a replica without its follower would serve one release for ever."""
        changed = _modified(release_file(self._home, self._task))
        if changed == self._served or (changed == self._failed and time.monotonic() < self._again):
            return
        try:
            problem = await self._take_up(read_release(self._home, self._task))
        except Exception as error:  # of the disk, the memory, or onnxruntime, whose errors are of a dozen types
            problem = f"the release is not taken up: {one_line(error)}"
        if not problem:
            self._served = changed
            return
        if changed != self._failed:  # said once
            log.error("%s: %s", self._task, problem)
        self._failed, self._again = changed, time.monotonic() + TRY_AGAIN_S


def one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _modified(path: Path) -> int:
    """When the file was, in nanoseconds; 0 where that cannot be said."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
