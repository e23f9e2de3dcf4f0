"""The plan and the result of a retraining. Callers that only request one import this, and no training code."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from models.curation.types import Rules
from models.releases.release import ReleaseError, is_first_version, read_release
from models.tasks.thresholds import Thresholds

RetrainingOutcome = Literal["released", "refused", "too_few", "outdated", "busy", "failed"]


@dataclass(frozen=True)
class Plan:
    """How to retrain one task."""

    task: str
    rules: Rules = field(default_factory=Rules)
    thresholds: Thresholds = field(default_factory=Thresholds)
    new_labels: bool = False
    min_samples: int = 1
    """with fewer corrections after curation, the run ends as `too_few` and returns them to the queue"""
    max_samples: int = 20_000
    eval_fraction: float = 0.2
    """share of the corrections, the newest and at most 100, held out for the gate and learned in a later run"""
    max_attempts: int = 3
    initial_stage: Literal["promote", "canary", "shadow"] = "canary"
    canary_fraction: float = 0.1
    recipe: tuple[tuple[str, Any], ...] = ()
    workers: int = 1


@dataclass(frozen=True)
class Result:
    """How a run ended, as a word and as a sentence; `version` is the new version of a run that released one."""

    outcome: RetrainingOutcome
    sentence: str
    version: str | None = None
    requeued: int = 0
    """corrections that the run returned to the queue; they alone do not start another run"""
    checks: tuple[tuple[str, bool], ...] = ()
    """the gate's checks on the candidate: name, and whether it passed"""


def not_yet(home: Path, task: str) -> str | None:
    """Why no retraining of `task` can run now, as a sentence: its champion has no checkpoint to continue from."""
    try:
        champion = read_release(home, task).champion
    except ReleaseError:
        return None
    if not is_first_version(home, task, champion):
        return None
    return (
        f"Version {champion} is the first, quick one, without an encoder: corrections are kept, and learned once a "
        "version with an encoder serves."
    )


def new_owner() -> str:
    """A name under which one run holds its lock and its leases."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def lock_of(task: str) -> str:
    """The name of the lock that a retraining of `task` holds in the store."""
    return f"retrain-{task}"
