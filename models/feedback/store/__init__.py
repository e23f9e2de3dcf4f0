"""The feedback store: predictions, feedback, leases, locks, audit log, requests. SQLite, or PostgreSQL by URL."""

from models.feedback.store.audit_log import Audit
from models.feedback.store.database import StoreError, StoreTooNew, StoreUnavailable
from models.feedback.store.label_join import made_at
from models.feedback.store.privacy import Erasure
from models.feedback.store.queue import DeadLetter
from models.feedback.store.retraining import RequestState, RetrainingRequest
from models.feedback.store.store import Store

__all__ = [
    "Audit",
    "DeadLetter",
    "Erasure",
    "RequestState",
    "RetrainingRequest",
    "Store",
    "StoreError",
    "StoreTooNew",
    "StoreUnavailable",
    "made_at",
]
