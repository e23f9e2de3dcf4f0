"""Entities in texts: order numbers, amounts, dates, products, personal data. One engine, one registry of types.

`registry.yaml` says which types there are and how each is found; a deployment adds its own (docs/customer-service.md).
The engine is loaded when one is asked for: commands read configurations and search no texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.entities.registry import Registry, package_registry, read_registry
from models.entities.types import EntitiesError, Entity, Found

if TYPE_CHECKING:
    from models.entities.engine import Engine

__all__ = [
    "EntitiesError",
    "Entity",
    "Found",
    "Registry",
    "default_engine",
    "engine_of",
    "package_registry",
    "read_registry",
]


def engine_of(registry: Registry) -> Engine:
    """The engine of the registry, which all versions of a task in a process share."""
    from models.entities.engine import shared_engine

    return shared_engine(registry)


def default_engine() -> Engine:
    """The engine of the package's types alone."""
    return engine_of(package_registry())
