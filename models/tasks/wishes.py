"""Several wishes in one text: which of its clauses have which label.

The linear reader reads each clause, in microseconds. It decides where it is sure, and where no second wish can be; only
the clauses between go to the encoder. A wish is also one of the most probable labels of the whole text. The bounds were
chosen on made messages, as docs/decisions/0047-confidence-and-wishes.md tells; `loadtests/quality/wishes.py` measures
what they give.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.tasks.base import rounded
from models.tasks.clauses import Span

Floats = NDArray[np.float32]

_SURE = 0.85
"""probability from which the linear reader's label of a clause is taken; without one such clause there is one wish"""
_SURE_BLEND = 0.8
"""probability from which the label by both readers is"""
_AMONG = 4
"""labels of the whole text, the most probable ones"""
_MAX_OUT_OF_SCOPE = 0.5
_MIN_LABEL, _MIN_LABEL_ALONE = 0.2, 0.75
"""of a clause that the encoder reads; the second where no label out_of_scope tells what is no wish at all"""


class Wish(NamedTuple):
    """A label for a clause; `score` is its probability."""

    label: int
    score: float
    span: Span


class Reading(NamedTuple):
    """What the linear reader makes of a text's clauses."""

    sure: Sequence[Wish]
    """of different labels; none when the text has one wish at most"""
    unread: Sequence[int]
    """indexes of the clauses that the encoder has to read, whose labels may be others"""


ONE_WISH = Reading((), ())


class WishRule:
    """Decides which clauses are wishes. `labels` are the model's; `out_of_scope` is that label's number, if any."""

    def __init__(self, labels: Sequence[str], out_of_scope: int | None):
        self._labels, self._out_of_scope = labels, out_of_scope
        self._min_label = _MIN_LABEL_ALONE if out_of_scope is None else _MIN_LABEL

    def of_linear(self, spans: Sequence[Span], probabilities: Floats) -> Reading:
        """`probabilities`, (clauses, labels), are the linear reader's."""
        label, score = self._best(probabilities)
        sure: dict[int, Wish] = {}
        for i in (-score).argsort(kind="stable").tolist():
            if score[i] >= _SURE:
                sure.setdefault(int(label[i]), Wish(int(label[i]), float(score[i]), spans[i]))
        if not sure:
            return ONE_WISH
        unread: dict[int, int] = {}  # label -> the clause that has it most probably
        for i in (-score).argsort(kind="stable").tolist():
            open_ = self._out_of_scope is None or probabilities[i, self._out_of_scope] < _MAX_OUT_OF_SCOPE
            if open_ and self._min_label <= score[i] < _SURE and int(label[i]) not in sure:
                unread.setdefault(int(label[i]), i)
        if len(sure) + len(unread) < 2:
            return ONE_WISH
        return Reading(list(sure.values()), sorted(unread.values()))

    def of_both(self, spans: Sequence[Span], probabilities: Floats) -> list[Wish]:
        """The wishes among clauses that the encoder has read. `probabilities`, (clauses, labels), are both readers'."""
        label, score = self._best(probabilities)
        return [Wish(int(label[i]), float(score[i]), spans[i]) for i in np.flatnonzero(score >= _SURE_BLEND).tolist()]

    def intents(self, wishes: Sequence[Wish], whole: Floats) -> list[dict[str, Any]]:
        """What a client gets: one entry a label, in the order of the text; none for fewer than two different labels.

        `whole`, (labels,), are the probabilities of the whole text.
        """
        among = set(self._best_first(whole)[:_AMONG])
        best: dict[int, Wish] = {}
        for wish in wishes:
            if wish.label in among and (wish.label not in best or wish.score > best[wish.label].score):
                best[wish.label] = wish
        if len(best) < 2:
            return []
        return [
            {
                "label": self._labels[wish.label],
                "score": rounded(wish.score),
                "start": wish.span.start,
                "end": wish.span.end,
            }
            for wish in sorted(best.values(), key=lambda wish: wish.span)
        ]

    def _best_first(self, whole: Floats) -> list[int]:
        ranked: list[int] = (-whole).argsort(kind="stable").tolist()
        return [label for label in ranked if label != self._out_of_scope]

    def _best(self, probabilities: Floats) -> tuple[NDArray[np.intp], Floats]:
        """Each clause's label and its probability; 0 for out of scope, which is no wish."""
        wanted = probabilities
        if self._out_of_scope is not None:
            wanted = probabilities.copy()
            wanted[:, self._out_of_scope] = 0.0
        return wanted.argmax(axis=1), np.maximum.reduce(wanted, axis=1)
