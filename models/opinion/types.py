"""Value types of opinion monitoring, shared by the sentiment task, the store and the controller."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Document:
    """One text that was given an opinion. Times have a zone."""

    document_id: str
    """the client's, by which a document sent again is known; else `<prediction id>/<index>`"""
    text: str
    published: datetime
    """when the text appeared; if the client did not say, when it was answered"""
    topics: tuple[str, ...]
    """at least one: `other` where nothing was found"""
    label: str
    score: float
    prediction_id: str
    at: datetime
    """when it was answered"""


@dataclass(frozen=True, slots=True)
class Counts:
    """What was published on a topic in an interval.

    `texts` and the three labels count texts. `stories` counts near copies once, with the label of the story's first
    text.
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
        """(positive - negative) / all, of the stories: -1 to 1; 0 without stories."""
        return (self.story_positive - self.story_negative) / self.stories if self.stories else 0.0
