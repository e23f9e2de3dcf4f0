"""A version of a task's model in memory, ready to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.bundle import Bundle, Stage
from export.model import Model
from export.tokenizer import Ids
from models.tasks.base import ClassifierTask, Task
from models.tasks.confidence import WITHOUT_MEASUREMENT, measured
from serve.engine.batcher import Batcher
from serve.engine.token_cache import CachingEncoder
from serve.engine.wishes import WishReader

_MAX_TOKENS_ON_LOOP = 10_000  # reading more would block the event loop for more than some milliseconds

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
    wishes: WishReader | None = None
    """None where several wishes in one text are not looked for"""

    @property
    def early_rule(self) -> dict[str, Any] | None:
        """When the linear reader answers instead of the encoder, and how often at training; None if it never does."""
        record = self.bundle.manifest.linear
        if record is None or record.early is None or self.model.session is None or not self.model.answers_early:
            return None
        return record.early.model_dump(include={"above", "min_known", "share", "agreement", "accuracy"})

    @property
    def confidence_bounds(self) -> dict[str, Any] | None:
        """From which scores an answer's confidence is high and medium; None for a ranker."""
        if not isinstance(self.task, ClassifierTask):
            return None
        found = measured(self.bundle.manifest)
        if found is None:
            return {**WITHOUT_MEASUREMENT._asdict(), "measured": False}
        return {
            "high": found.high,
            "medium": found.medium,
            **found.model_dump(exclude={"high", "medium"}),
            "measured": True,
        }

    async def early_answers(self, rows: Sequence[Ids]) -> list[Output | None]:
        """For each text, given its token ids, the logits of an early answer, or None: the encoder must read it.

        A large request is read off the event loop.
        """
        if not self.model.answers_early:
            return [None] * len(rows)
        new = [None if self.batcher.is_cached(ids) else ids for ids in rows]
        if sum(map(len, rows)) > _MAX_TOKENS_ON_LOOP:
            return await asyncio.to_thread(self._read, new)
        return self._read(new)

    def _read(self, rows: Sequence[Ids | None]) -> list[Output | None]:
        return [None if ids is None else self.model.early(ids) for ids in rows]

    def stages(self, early: Sequence[Output | None]) -> list[Sequence[Stage]]:
        """For each text, given its early answer, the readers that its answer comes from."""
        return [self.model.stages if found is None else ("linear",) for found in early]

    async def outputs(
        self,
        rows: Sequence[Ids],
        early: Sequence[Output | None],
        deadline: float,
        disconnected: Callable[[], bool] = bool,
    ) -> Output:
        """The outputs of all texts for `task.decode`, in order; raises what `Batcher.submit` does."""
        if not rows:  # a ranker knows all items of the request
            return np.zeros((0, 0), np.float32)
        unread = [ids for ids, found in zip(rows, early, strict=True) if found is None]
        if len(unread) == len(rows):
            return await self.batcher.submit(rows, deadline, disconnected)
        answered = self.task.activate(np.array([found for found in early if found is not None]))
        if not unread:
            return answered
        is_early = np.array([found is not None for found in early])
        merged = np.empty((len(rows), answered.shape[1]), np.float32)
        merged[is_early], merged[~is_early] = answered, await self.batcher.submit(unread, deadline, disconnected)
        return merged
