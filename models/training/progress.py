"""Progress of a training, in a file beside the releases: the run and the server are different processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from export.files import write_atomically
from models.home import progress_file, training_progress_file

_WRITE_INTERVAL_S = 1.0

ReportStage = Callable[[str, int, int], None]
"""a progress callback, called with (stage, steps done, steps in total)"""


class ProgressFile:
    """A `ReportStage` that writes the task's progress file, at most once a second within a stage.

    `path`: instead of that of a retraining.
    """

    def __init__(self, home: Path, task: str, path: Path | None = None):
        self._path = path or progress_file(home, task)
        self._started = self._stage_started = time.monotonic()
        self._stage = ""
        self._written = -_WRITE_INTERVAL_S

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage == self._stage and now - self._written < _WRITE_INTERVAL_S:
            return
        if stage != self._stage:
            self._stage, self._stage_started = stage, now
        # Of this stage alone: the stages after training (export, gate) take about a minute.
        left = round((now - self._stage_started) / done * (total - done), 1) if done else None
        self._write({"state": "running", "stage": stage, "done": done, "total": total, "stage_seconds_left": left})
        self._written = now

    def end(self, outcome: str, sentence: str, version: str | None) -> None:
        """Write how the run ended: models.retraining.plan.Result says what each field is."""
        self._write({"state": outcome, "sentence": sentence, "version": version})

    def _write(self, fields: Mapping[str, Any]) -> None:
        content = orjson.dumps({**fields, "seconds": round(time.monotonic() - self._started, 1)})
        with suppress(OSError):  # a full disk must not end a run here
            write_atomically(self._path, content, durable=False)


def read_training(home: Path, task: str) -> dict[str, Any] | None:
    """The progress of the training that `flywheel up` runs beside the task's first version; None without one."""
    try:
        found: dict[str, Any] = orjson.loads(training_progress_file(home, task).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return found


def read_progress(home: Path, task: str, *, running: bool) -> dict[str, Any]:
    """The progress that the last run wrote; `running` says whether a run holds the task's lock.

    A run that says `running` without the lock was killed before it wrote its end: its state is `interrupted`.
    """
    try:
        found: dict[str, Any] = orjson.loads(progress_file(home, task).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {"state": "running" if running else "never"}
    if found["state"] == "running" and not running:
        return {"state": "interrupted", "stage": found["stage"], "seconds": found["seconds"]}
    return found
