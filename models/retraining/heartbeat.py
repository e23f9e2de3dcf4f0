"""The lock and the leases of a run, kept for as long as it lasts: a thread renews what else expires by itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from models.feedback.store import Store, StoreError

log = logging.getLogger("flywheel.retrain")

LEASE_S = 120.0
_RENEW_S = 20.0


@contextmanager
def held(store: Store, lock: str, owner: str, lost: threading.Event) -> Iterator[None]:
    """Renew the lock and the leases from a thread until the block ends; `lost` is set when another has the lock."""
    done = threading.Event()

    def renew() -> None:
        if store.locks.acquire(lock, owner, LEASE_S):
            store.queue.renew(owner, LEASE_S)
        else:
            lost.set()

    def work() -> None:
        while not lost.is_set() and not done.wait(_RENEW_S):
            quietly(renew)

    thread = threading.Thread(target=work, name="leases", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def quietly(action: Callable[[], object]) -> None:
    """What a lease's expiry would do anyway must not hide what went wrong before."""
    try:
        action()
    except StoreError as error:
        log.warning("the feedback store: %s", error)
