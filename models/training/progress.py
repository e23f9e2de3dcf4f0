"""How far a retraining is, in a file beside the releases: who runs it and who asks are different processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from export.files import write_atomically
from models.home import progress_file

_EVERY_S = 1.0

Stage = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


class ProgressFile:
    """Called with (stage, steps done, steps in all) as the work goes on; writes at most once a second and stage."""

    def __init__(self, home: Path, task: str):
        self._path = progress_file(home, task)
        self._began = self._stage_began = time.time()
        self._stage = ""
        self._written = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.time()
        if stage == self._stage and now - self._written < _EVERY_S:
            return
        if stage != self._stage:
            self._stage, self._stage_began = stage, now
        # Of this stage: what comes after it, an export and a few hundred texts through the gate, takes about a minute.
        left = round((now - self._stage_began) / done * (total - done), 1) if done else None
        self._write({"state": "running", "stage": stage, "done": done, "total": total, "stage_seconds_left": left})
        self._written = now

    def end(self, outcome: str, sentence: str, version: str | None) -> None:
        self._write({"state": outcome, "sentence": sentence, "version": version})

    def _write(self, fields: Mapping[str, Any]) -> None:
        content = orjson.dumps({**fields, "seconds": round(time.time() - self._began, 1)})
        with suppress(OSError):  # a full disk ends a run where it matters, not here
            write_atomically(self._path, content)


def read_progress(home: Path, task: str, *, running: bool) -> dict[str, Any]:
    """What the last run wrote. `running` says whether one holds the task's lock: what was killed wrote no end."""
    try:
        found: dict[str, Any] = orjson.loads(progress_file(home, task).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {"state": "running" if running else "never"}
    if found["state"] == "running" and not running:
        return {"state": "interrupted", "stage": found["stage"], "seconds": found["seconds"]}
    return found
