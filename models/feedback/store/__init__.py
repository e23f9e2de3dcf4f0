"""The feedback store: predictions, feedback, leases, locks, audit log, retraining requests. SQLite or PostgreSQL."""

from models.feedback.store.audit_log import AuditEntry
from models.feedback.store.database import StoreError, StoreTooNew, StoreUnavailable
from models.feedback.store.knowledge import KnowledgeFull, KnowledgeState
from models.feedback.store.label_join import made_at
from models.feedback.store.privacy import ErasureResult
from models.feedback.store.queue import DeadLetter
from models.feedback.store.retraining import RequestState, RetrainingRequest
from models.feedback.store.store import Store

__all__ = [
    "AuditEntry",
    "DeadLetter",
    "ErasureResult",
    "KnowledgeFull",
    "KnowledgeState",
    "RequestState",
    "RetrainingRequest",
    "Store",
    "StoreError",
    "StoreTooNew",
    "StoreUnavailable",
    "made_at",
]
