"""What each kind of model does in its own way, from reading its data to the gate. `base.py` lists it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from export.bundle import Kind
from models.tasks.base import get_task
from models.training.families.base import ModelFamily
from models.training.families.classifier import ClassifierFamily
from models.training.families.ranker import RankerFamily

_FAMILIES: Mapping[Kind, ModelFamily[Any]] = {family.kind: family for family in (ClassifierFamily(), RankerFamily())}


def family_of(task: str) -> ModelFamily[Any]:
    """The family of a task's models. Raises UnknownTaskError."""
    return _FAMILIES[get_task(task).kind]
