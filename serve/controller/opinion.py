"""Counts the documents that wait in the store's inbox, and deletes those that are old."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from models.feedback.store import Store
from models.feedback.store.opinion import Absorbed
from serve.config import OpinionConfig

_BATCH = 1000  # documents in a transaction, which blocks SQLite's other writers for 0.2 s
_STEP_S = 1.0  # other reconcilers share the loop
_EXPIRE_EVERY_S = 3600.0
_PAUSE_S = 0.02  # between two deletions, for other writers
_EVALUATE_EVERY_S = 30.0  # while documents wait: what is loaded is evaluated once, not after each of its batches


class OpinionReconciler:
    """Counts one task's documents, some of them in each step of the controller's loop.

    `counted` is called with what became of each batch; `evaluate` at the end of a step that left nothing waiting, and
    every 30 s while something does. Both may raise StoreError.
    """

    def __init__(
        self,
        config: OpinionConfig,
        store: Store,
        counted: Callable[[Absorbed], None] = lambda absorbed: None,
        evaluate: Callable[[], None] = lambda: None,
    ):
        self._task = config.task
        self._window = timedelta(hours=config.story_window_h)
        self._keep = timedelta(days=config.keep_days)
        self._store = store
        self._counted = counted
        self._evaluate = evaluate
        self._expire_at = self._evaluate_at = 0.0
        self.behind = False
        """whether the last step left documents waiting, so that the next one should follow at once"""

    def step(self) -> None:
        """Count until nothing waits or a second has passed, then evaluate. Raises StoreError; the next step goes on."""
        ends = time.monotonic() + _STEP_S
        self.behind = False  # of a store that is away nothing is known, and the loop shall not spin
        while not self.behind and (batch := self._store.opinion.next_batch(self._task, _BATCH)):
            self._counted(self._store.opinion.absorb(self._task, batch, self._window))
            if len(batch) < _BATCH:
                break
            self.behind = time.monotonic() > ends
        self._expire()
        if not self.behind or time.monotonic() >= self._evaluate_at:
            self._evaluate_at = time.monotonic() + _EVALUATE_EVERY_S
            self._evaluate()

    def _expire(self) -> None:
        """Once an hour: delete what is old. What takes longer than a second goes on in the next step."""
        if time.monotonic() < self._expire_at:
            return
        ends = time.monotonic() + _STEP_S
        for _ in self._store.opinion.expire(self._task, self._keep):
            if time.monotonic() > ends:
                return
            time.sleep(_PAUSE_S)
        self._expire_at = time.monotonic() + _EXPIRE_EVERY_S
