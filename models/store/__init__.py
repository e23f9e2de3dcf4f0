"""The feedback store: prediction log, feedback, leases, locks, audit log. SQLite by default, PostgreSQL by URL."""

from models.store.database import StoreError, StoreTooNew, StoreUnavailable
from models.store.joining import made_at
from models.store.leases import DeadLetter
from models.store.ledger import Audit
from models.store.privacy import Erasure
from models.store.store import Store

__all__ = ["Audit", "DeadLetter", "Erasure", "Store", "StoreError", "StoreTooNew", "StoreUnavailable", "made_at"]
