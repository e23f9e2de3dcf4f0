"""Lease heartbeat: a thread renews the lock and the leases of a retraining until it ends; unrenewed, they expire."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from models.feedback.store import Store, StoreError
from models.retraining.plan import lock_of

log = logging.getLogger("flywheel.retrain")

LEASE_S = 120.0
_RENEW_S = 20.0


@contextmanager
def lease_heartbeat(store: Store, lock: str, owner: str, lost: threading.Event) -> Iterator[None]:
    """Renew the lock and the leases from a thread until the block ends.

    Sets `lost`, and stops renewing, when another owner has the lock.
    """
    done = threading.Event()

    def renew() -> None:
        if store.locks.acquire(lock, owner, LEASE_S):
            store.queue.renew(owner, LEASE_S)
        else:
            lost.set()

    def work() -> None:
        while not lost.is_set() and not done.wait(_RENEW_S):
            log_store_errors(renew)

    thread = threading.Thread(target=work, name="leases", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def give_up(store: Store, task: str, owner: str) -> None:
    """Release the lock and the leases of a run whose process has died, which would hold them for LEASE_S. A run that
    released them itself, or lost them to another, has none; one that lives still does not release its candidate."""
    store.queue.give_back(owner, reason="its retraining was killed")
    store.locks.release(lock_of(task), owner)


def log_store_errors(action: Callable[[], object]) -> None:
    """Run `action`; log a StoreError instead of raising it.

    For clean-up that the expiry of the lease does anyway: its failure must not hide the error before it.
    """
    try:
        action()
    except StoreError as error:
        log.warning("the feedback store: %s", error)
