"""Texts and a small recipe, for what mixes new texts with old ones."""

from __future__ import annotations

from models.data.dataset import Example
from models.training.config import Recipe

RECIPE = Recipe(replay=5, repeats=2)


def examples(label: str, count: int) -> list[Example]:
    return [Example(f"{label} number {i}", label) for i in range(count)]
