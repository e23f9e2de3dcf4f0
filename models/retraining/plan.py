"""How a task is retrained, and what came of it: all that who asks for a run needs to import."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from models.curation.types import Rules
from models.tasks.thresholds import Thresholds

ASKED = "retrain asked"
"""the entry in the audit log by which somebody asks for a run"""


Outcome = Literal["released", "refused", "too_few", "outdated", "busy", "failed"]


@dataclass(frozen=True)
class Plan:
    """How one task is retrained."""

    task: str
    rules: Rules = field(default_factory=Rules)
    thresholds: Thresholds = field(default_factory=Thresholds)
    new_labels: bool = False
    min_samples: int = 1
    """fewer corrections that survive curation are left for a later run"""
    max_samples: int = 20_000
    eval_fraction: float = 0.2
    """the newest share of them, and at most a hundred, that judge the candidate and are not learned from yet"""
    max_attempts: int = 3
    initial_stage: Literal["promote", "canary", "shadow"] = "canary"
    canary_fraction: float = 0.1
    recipe: tuple[tuple[str, Any], ...] = ()
    workers: int = 1


@dataclass(frozen=True)
class Result:
    """What came of a run, in a word and in a sentence; `version` is the new one, if there is one."""

    outcome: Outcome
    sentence: str
    version: str | None = None
    left: int = 0
    """corrections that it put back into the queue: by themselves they are no reason for another run"""


def lock_of(task: str) -> str:
    """The name of the lock that whoever retrains the task holds."""
    return f"retrain-{task}"
