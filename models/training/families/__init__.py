"""The model families: for each kind of model, its own steps from reading data to the gate. Begin at `base.py`."""

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
