"""Deletes predictions from the log after `feedback.log.keep_days`."""

from __future__ import annotations

import time
from datetime import timedelta

from models.feedback.store import Store
from models.feedback.store.database import utc_now

_EVERY_S = 3600.0


class PredictionRetention:
    """Deletes expired predictions of all tasks, once an hour."""

    def __init__(self, store: Store, keep_days: float):
        self._store = store
        self._keep = timedelta(days=keep_days)
        self._due = 0.0

    def step(self) -> None:
        """Delete expired predictions if it is time. Raises StoreError; the next step retries."""
        if time.monotonic() >= self._due:
            self._store.predictions.expire(utc_now() - self._keep)
            self._due = time.monotonic() + _EVERY_S
