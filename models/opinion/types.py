"""Value types of opinion monitoring, shared by the task, the store, trends and surges."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Document:
    """One text whose opinion was predicted, with personal data redacted once it is in the store."""

    document_id: str
    """the client's, else `<prediction id>/<index>`"""
    text: str
    published: datetime
    topics: tuple[str, ...]
    label: str
    score: float
    prediction_id: str
    at: datetime
    """when it was predicted"""


class Counts(NamedTuple):
    """Counts of a topic in a stretch of time.

    `texts` and its labels count texts. `stories` count near copies once, with the label of the story's first text.
    """

    texts: int = 0
    positive: int = 0
    neutral: int = 0
    negative: int = 0
    stories: int = 0
    story_positive: int = 0
    story_negative: int = 0

    @property
    def net(self) -> float:
        """(positive - negative) / all, of the stories: from -1 to 1, and 0 without stories."""
        return (self.story_positive - self.story_negative) / self.stories if self.stories else 0.0
