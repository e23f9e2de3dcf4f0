"""The FeedbackStore as the rest of Flywheel knows it: each part is one file, and `Database` carries them all."""

from __future__ import annotations

from models.feedback.store.feedback import FeedbackLog
from models.feedback.store.leases import Leases
from models.feedback.store.predictions import PredictionLog
from models.feedback.store.privacy import Privacy
from models.feedback.store.queries import Reading


class Store(PredictionLog, FeedbackLog, Reading, Leases, Privacy):
    """Predictions, corrections, leases, locks and the audit log of all tasks in one database.

    `Store(url)` does not connect; `Store.open(url)` does, and migrates. Methods may be called from any thread and from
    any number of processes. Each either is done and durable when it returns, or raises: StoreUnavailable where the
    same call may work later.
    """
