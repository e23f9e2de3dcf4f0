"""The feedback store: one database, with a part for each kind of data."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Self

from models.feedback.store.audit_log import AuditLog
from models.feedback.store.database import Database, Observe, utc_now
from models.feedback.store.feedback import Feedback
from models.feedback.store.knowledge import Knowledge
from models.feedback.store.lineage import SampleLineage
from models.feedback.store.locks import Locks
from models.feedback.store.opinion import Opinion
from models.feedback.store.opinion_alerts import OpinionAlerts
from models.feedback.store.predictions import Predictions
from models.feedback.store.privacy import Privacy
from models.feedback.store.queue import Queue
from models.feedback.store.retraining import RetrainingRequests


class Store:
    """Predictions, corrections, leases, locks, audit log, requests for retraining and opinions of all tasks, and the
    knowledge base, in one database.

    `Store(url)` does not connect: the first call that needs the database migrates it to the newest schema.
    `Store.open(url)` does so at once. Methods of the parts may be called from any thread and from any number of
    processes. Each is done and durable when it returns, or raises StoreUnavailable if the same call may work later, or
    StoreTooNew if a newer Flywheel has migrated the database.

    `patience_s` is how long a call waits for other writers or for the server before it raises StoreUnavailable.
    `clock` is the current time; leases and locks of machines that share a database depend on it.
    `observe` is called after each transaction, for metrics.
    """

    def __init__(
        self,
        url: str,
        *,
        patience_s: float = 10.0,
        clock: Callable[[], datetime] = utc_now,
        observe: Observe = lambda operation, seconds, failed: None,
    ):
        self.database = database = Database(url, patience_s=patience_s, clock=clock, observe=observe)
        self.opinion = Opinion(database)
        self.opinion_alerts = OpinionAlerts(database)
        self.predictions = Predictions(database, self.opinion)
        self.feedback = Feedback(database)
        self.queue = Queue(database)
        self.lineage = SampleLineage(database)
        self.locks = Locks(database)
        self.audit = AuditLog(database)
        self.privacy = Privacy(database, self.audit)
        self.retraining = RetrainingRequests(database, self.audit)
        self.knowledge = Knowledge(database, self.audit)

    @classmethod
    def open(cls, url: str, *, patience_s: float = 10.0, clock: Callable[[], datetime] = utc_now) -> Self:
        """Connect, and migrate to the newest schema; any number of processes may do so at once.

        Raises StoreUnavailable, or StoreTooNew.
        """
        store = cls(url, patience_s=patience_s, clock=clock)
        try:
            store.migrate()
        except BaseException:
            store.close()
            raise
        return store

    def migrate(self) -> None:
        """Migrate to the newest schema now. Raises StoreUnavailable, or StoreTooNew."""
        self.database.migrate()

    def close(self) -> None:
        """Close the idle connections. The store still works, and opens them again."""
        self.database.close()
