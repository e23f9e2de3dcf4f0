"""Value types of predictions and feedback, shared by store, curation and retraining."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from models.opinion.types import Document

FeedbackState = Literal["waiting", "leased", "used", "quarantined", "dropped", "no_consent", "dead"]
FeedbackOutcome = Literal["accepted", "duplicate", "replaced", "unknown_id", "stale_id", "needs_index", "erased"]


@dataclass(frozen=True, slots=True)
class LoggedPrediction:
    """One prediction as logged. `input` and `output` are JSON values, with personal data redacted."""

    id: str
    task: str
    version: str
    input: Any
    output: Any
    at: datetime
    topic: str | None = None
    user: str | None = None
    """who asked: a keyed hash, never the name that the client sent"""
    subject: str | None = None
    """whose data it is, also hashed, where the request names another user than the one who asked"""


@dataclass(frozen=True, slots=True)
class NewFeedback:
    """A received correction, with personal data redacted. It has a prediction's id, or its own text."""

    task: str
    source: str
    consent: bool
    at: datetime
    label: str | None = None
    prediction_id: str | None = None
    index: int | None = None
    """which text of the prediction it is about; may be None if that had only one"""
    text: str | None = None
    item_id: str | None = None
    event: str | None = None
    value: float | None = None
    """of a rating, or the seconds of a dwell"""
    user: str | None = None
    """a keyed hash of who gave it"""
    subject: str | None = None
    """a keyed hash of the user whose text it is, if that is another one, and the prediction names nobody"""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The outcome of one NewFeedback. `id` is its row; None if it was rejected."""

    outcome: FeedbackOutcome
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A correction as retraining reads it, joined with its prediction, if any."""

    id: int
    task: str
    text: str
    label: str
    source: str
    at: datetime
    user: str | None = None
    prediction_id: str | None = None
    version: str | None = None
    """the version that made the corrected prediction"""
    predicted: str | None = None
    attempts: int = 0
    """failed training attempts that included it"""
    extra: dict[str, Any] = field(default_factory=dict)
    """for recommendation: item_id, event, value, and the prediction's input and output"""


class GivenLabel(NamedTuple):
    """A label that somebody gave, to a logged prediction or to a text of their own."""

    key: bytes
    source: str
    label: str
    prediction_id: str | None
    text: str | None
    """None without consent"""
    predicted: str | None
    """the label of the prediction, if it was to one"""
    trusted: bool
    """whether curation has not quarantined it"""


class ItemEvent(NamedTuple):
    """What a user did with an item of a logged ranking."""

    item_id: str
    event: str
    value: float | None
    """of a rating, or the seconds of a dwell; None of other events"""


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document as it goes into the store, with personal data redacted."""

    task: str
    document: Document
    user: str | None = None
    """who sent it: a keyed hash"""
