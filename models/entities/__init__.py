"""Entities in texts: order numbers, amounts, dates, products, personal data. One engine, one registry of types.

`registry.yaml` says which types there are and how each is found; a deployment adds its own (docs/customer-service.md).
"""

from models.entities.engine import Engine, default_engine, engine_of
from models.entities.registry import Registry, package_registry, read_registry
from models.entities.types import EntitiesError, Entity, Found

__all__ = [
    "Engine",
    "EntitiesError",
    "Entity",
    "Found",
    "Registry",
    "default_engine",
    "engine_of",
    "package_registry",
    "read_registry",
]
