"""Headlines of a market's day as a news feed delivers them: each with its time and id, some printed by several."""

from __future__ import annotations

import random
import uuid
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any

from loadtests.locust.bodies import seed

SYNDICATED = 0.2
"""share of the documents that another outlet has printed before, in this form or a similar one"""
_COMPANIES = ("Velmora", "Kestrand", "Orlanda", "Brantic", "Tarnwick", "Harbrook", "Quellin", "Morvane", "Istrell")
_FORMS = ("{}", "UPDATE 1-{}", "{} - Kestrand Times", "{}.", "BRIEF-{}", "{} | The Velmora Post")
_RECENT = 200  # headlines that others may print again


class Headlines:
    """Draws headlines. The same seed draws the same texts; ids differ by run, since an id counts once."""

    def __init__(self, number: int):
        self._draw = random.Random(number)
        self._pool = seed.labelled("sentiment")
        self._recent: deque[str] = deque(maxlen=_RECENT)
        self._run = uuid.uuid4().hex[:12]
        self._sent = 0

    def text(self) -> str:
        """A headline that nobody has printed, or a copy of a recent one."""
        if self._recent and self._draw.random() < SYNDICATED:
            return self._draw.choice(_FORMS).format(self._draw.choice(self._recent))
        text, _ = self._draw.choice(self._pool)
        text = f"{text}, {self._draw.choice(_COMPANIES)} {self._draw.randrange(10_000, 1_000_000)}"
        self._recent.append(text)
        return text

    def document(self) -> dict[str, Any]:
        """A document of the last ten minutes; the server finds its topics."""
        self._sent += 1
        published = datetime.now(UTC) - timedelta(seconds=self._draw.uniform(0, 600))
        return {
            "text": self.text(),
            "published": published.isoformat(timespec="seconds"),
            "document_id": f"loadtest/{self._run}/{self._sent}",
        }

    def bulk(self) -> dict[str, Any]:
        """What a feed has gathered since it last asked: 16 to 64 documents in one request."""
        return {"documents": [self.document() for _ in range(self._draw.randint(16, 64))]}

    def choose(self, topics: list[str]) -> str | None:
        """The topic that a reader opens; None while there is none."""
        return self._draw.choice(topics) if topics else None

    def label(self) -> str:
        return self._draw.choice(("positive", "neutral", "negative"))
