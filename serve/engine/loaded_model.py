"""A version of a task's model in memory, ready to answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.bundle import Bundle
from export.model import Model
from export.tokenizer import Ids
from models.tasks.base import Task
from serve.engine.batcher import Batcher
from serve.engine.token_cache import CachingEncoder

Output = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class LoadedVersion:
    """A bundle with its model, task, encoder and batcher; `path` is the bundle's, relative to the home directory."""

    version: str
    path: str
    bundle: Bundle
    task: Task
    model: Model
    encoder: CachingEncoder
    batcher: Batcher

    def early_answers(self, rows: Sequence[Ids]) -> list[Output | None]:
        """For each text, given its token ids, the logits of an early answer, or None: the encoder must read it."""
        if not self.model.answers_early:
            return [None] * len(rows)
        return [None if self.batcher.is_cached(ids) else self.model.early(ids) for ids in rows]

    async def outputs(
        self,
        rows: Sequence[Ids],
        early: Sequence[Output | None],
        deadline: float,
        disconnected: Callable[[], bool] = bool,
    ) -> Output:
        """The outputs of all texts for `task.decode`, in order; raises what `Batcher.submit` does."""
        unread = [ids for ids, found in zip(rows, early, strict=True) if found is None]
        if len(unread) == len(rows):
            return await self.batcher.submit(rows, deadline, disconnected)
        answered = self.task.activate(np.stack([found for found in early if found is not None]))
        if not unread:
            return answered
        is_early = np.array([found is not None for found in early])
        merged = np.empty((len(rows), answered.shape[1]), np.float32)
        merged[is_early], merged[~is_early] = answered, await self.batcher.submit(unread, deadline, disconnected)
        return merged
