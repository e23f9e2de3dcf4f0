"""The process's Prometheus registry, left as it was: only one set of the replica's collectors can be in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import REGISTRY


@contextmanager
def registry_restored() -> Iterator[None]:
    """Collectors that are registered in the block are taken out after it, for whoever registers the next."""
    before = set(REGISTRY._names_to_collectors.values())
    try:
        yield
    finally:
        for collector in set(REGISTRY._names_to_collectors.values()) - before:
            REGISTRY.unregister(collector)
