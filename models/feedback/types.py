"""A user's correction on its way to the next version: the value types that store, curation and retraining share."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

State = Literal["waiting", "leased", "used", "quarantined", "dropped", "no_consent", "dead"]
Outcome = Literal["accepted", "duplicate", "replaced", "unknown_id", "stale_id", "needs_index"]


@dataclass(frozen=True, slots=True)
class LoggedPrediction:
    """One answer as the prediction log keeps it. `input` and `output` are JSON values, personal data removed."""

    id: str
    task: str
    version: str
    input: Any
    output: Any
    at: datetime
    topic: str | None = None
    user: str | None = None
    """a keyed hash, never the name the client gave"""


@dataclass(frozen=True, slots=True)
class NewFeedback:
    """A correction that was just received, personal data removed. It carries a prediction's id, or its own text."""

    task: str
    source: str
    consent: bool
    at: datetime
    label: str | None = None
    prediction_id: str | None = None
    index: int | None = None
    """which text of the prediction is meant; may be None where it had one"""
    text: str | None = None
    item_id: str | None = None
    event: str | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one NewFeedback. `id` is the row it is in, None where it was not taken."""

    outcome: Outcome
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A correction as retraining reads it, joined with the prediction it speaks of, if any."""

    id: int
    task: str
    text: str
    label: str
    source: str
    at: datetime
    user: str | None = None
    prediction_id: str | None = None
    version: str | None = None
    """which version gave the answer that was corrected"""
    predicted: str | None = None
    attempts: int = 0
    """that failed with it among what was learned"""
    extra: dict[str, Any] = field(default_factory=dict)
    """for recommendation: item_id, event, and the prediction's input and output"""
