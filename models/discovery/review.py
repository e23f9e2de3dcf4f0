"""What to label next: the uncertain texts that stand for the most requests, and for different ones.

Facility location over the uncertain texts (Wei, Iyer and Bilmes, 2015, https://proceedings.mlr.press/v37/wei15.html):
every request counts by how unsure the model was of it, and is covered by the most similar text that is labelled. The
next text is the one that adds the most. So a list has no two wordings of one question, a frequent question comes before
a rare one, and what resembles labelled texts comes last. docs/decisions/0049-what-to-label-next.md has the figures.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.discovery.logged_texts import MAX_LABELS, LabelledTexts, LoggedText, read_log, uncertainty
from models.discovery.word_vectors import Vectors, similarities, word_vectors
from models.feedback.store import Store
from models.text import same_text_key

MAX_SUGGESTIONS = 500
_MAX_CANDIDATES = 1_000  # the most uncertain and frequent; 3,000 found no better ones
_MAX_COMPARED = 3_000  # labelled texts, the newest
_WEIGHT_OF_OLD = 0.5  # of what was asked before the champion was trained, too
_CLOCKS_DIFFER = timedelta(minutes=1)  # of machines
_ALIKE = 0.4  # the cosine from which a request counts as similar

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A text to label, and why."""

    text: LoggedText
    uncertainty: float
    similar: int
    """requests with other texts that are like it, among the uncertain ones"""

    @property
    def reason(self) -> str:
        """Why it should be labelled, as sentences."""
        sentences = [_doubt(self.text, self.uncertainty)]
        times = "once" if self.text.times == 1 else f"{self.text.times:,} times"
        more = f"; {self.similar:,} other uncertain requests are like it" if self.similar else ""
        sentences.append(f"Asked {times}{more}.")
        if not self.text.new:
            sentences.append("Asked before the champion was trained, too.")
        return " ".join(sentences)


class Review(NamedTuple):
    """What to label next, of a task's log."""

    champion: str | None
    texts: int
    """different texts of the log that nobody has labelled"""
    suggestions: list[Suggestion]


def review(store: Store, home: Path, task: str, limit: int = MAX_SUGGESTIONS) -> Review:
    """What to label next, at most `limit` texts. Takes about a second, however long the log is. Raises StoreError."""
    log = read_log(store, home, task)
    return Review(log.champion, len(log.texts), what_to_label(log.texts, log.labelled.texts, limit))


def still_open(store: Store, task: str, suggestions: Sequence[Suggestion], since: datetime) -> list[Suggestion]:
    """Those of the suggestions, made at the time `since`, that were neither labelled nor deleted meanwhile.

    Raises StoreError.
    """
    logged = store.predictions.logged(task, {suggestion.text.id for suggestion in suggestions})
    labelled = LabelledTexts(task, store.feedback.labels(task, MAX_LABELS, since - _CLOCKS_DIFFER))
    texts = ((suggestion, suggestion.text) for suggestion in suggestions)
    return [
        suggestion
        for suggestion, text in texts
        if text.id in logged
        and not labelled.has(text.id, text.index, text.of)
        and not labelled.has_text(same_text_key(text.text))
    ]


def what_to_label(
    texts: Sequence[LoggedText],
    labelled: Sequence[str],
    limit: int,
    vectors: Callable[[Sequence[str]], Vectors] = word_vectors,
) -> list[Suggestion]:
    """At most `limit` of the texts, the most useful first. `labelled` are texts with a label, the newest first.

    A longer list begins with the shorter one. Time and memory do not grow with the texts beyond a few thousand.
    """
    doubts = np.array([uncertainty(text.prediction) for text in texts], np.float32)
    weights = doubts * np.array([text.times * (1 if text.new else _WEIGHT_OF_OLD) for text in texts], np.float32)
    chosen = np.argsort(-weights, kind="stable")[:_MAX_CANDIDATES]
    candidates, weights = [texts[i] for i in chosen.tolist()], weights[chosen]
    if not candidates:
        return []
    compared = labelled[:_MAX_COMPARED]
    rows = vectors([*(text.text for text in candidates), *compared])
    own, others = rows[: len(candidates)], rows[len(candidates) :]
    alike = np.maximum(similarities(own, own), 0)
    np.fill_diagonal(alike, 1)
    covered = np.maximum(similarities(own, others).max(1), 0) if compared else np.zeros(len(candidates), np.float32)
    times = np.array([text.times for text in candidates])
    return [
        Suggestion(candidates[i], float(doubts[chosen[i]]), int(times[alike[i] >= _ALIKE].sum() - times[i]))
        for i in cover(alike, weights, covered, min(limit, MAX_SUGGESTIONS))
    ]


def cover(similarity: Floats, weights: Floats, covered: Floats, count: int) -> list[int]:
    """The numbers of at most `count` rows that cover the others best, each the one that adds the most.

    A row is covered by the similarity, (rows, rows), to the most similar chosen row, or by `covered`, (rows,), from the
    start; it counts by its weight. What a row would add never grows, so an old value is an upper bound, and few rows
    are computed again (Minoux, 1978, https://doi.org/10.1007/BFb0006528).
    """
    covered = covered.copy()

    def gain(row: int) -> float:
        return float(weights @ np.maximum(similarity[row] - covered, 0))

    bounds = [(-gain(row), row) for row in range(len(weights))]
    heapq.heapify(bounds)
    found: list[int] = []
    while bounds and len(found) < count:
        _, row = heapq.heappop(bounds)
        current = gain(row)
        if bounds and current < -bounds[0][0]:
            heapq.heappush(bounds, (-current, row))
            continue
        found.append(row)
        covered = np.maximum(covered, similarity[row])
    return found


def _doubt(text: LoggedText, doubt: float) -> str:
    """What the model was unsure about."""
    scores = {str(top["label"]): float(top["score"]) for top in text.prediction.get("top_k", ())}
    scores = scores or dict(text.prediction.get("scores", {})) or {text.prediction["label"]: text.prediction["score"]}
    best = sorted(scores.items(), key=lambda item: -item[1])[:2]
    named = " or ".join(f"{label} ({score:.2f})" for label, score in best)
    sure = "Unsure" if doubt >= 0.5 else "Fairly sure" if doubt >= 0.1 else "Sure"
    return f"{sure}: {named}."
