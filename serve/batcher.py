"""Batching: whatever waits while the model is busy goes next, grouped by length so that padding is bounded.

One batcher a loaded version. It never waits for a batch to fill: an idle model takes one text at once, a busy one
finds more of them waiting, and so the batch grows with the load and not with a timer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serve.config import Batching
from serve.errors import DeadlineExceeded
from serve.metrics import Metrics

_TOO_LATE = "the deadline passed before the model answered"

Row = NDArray[np.float32]
Run = Callable[[Sequence[Sequence[int]]], NDArray[np.float32]]


@dataclass(slots=True)
class _Entry:
    ids: list[int]
    deadline: float
    future: asyncio.Future[Row]
    since: float = field(default_factory=time.monotonic)
    expired: bool = False


class Batcher:
    """Feeds `run` from a queue, on `executor`, one batch at a time."""

    def __init__(self, run: Run, executor: Executor, settings: Batching, metrics: Metrics, version: str):
        self._run = run
        self._executor = executor
        self._settings = settings
        self._metrics = metrics
        self._version = version
        self._waiting: list[_Entry] = []
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._running = False

    def start(self) -> None:
        self._worker = asyncio.create_task(self._work(), name=f"batcher-{self._version}")

    async def stop(self) -> None:
        """Finish what waits and what runs, then end the worker."""
        while (self._waiting or self._running) and self.alive:  # noqa: ASYNC110  an event would cost every batch for one shutdown
            await asyncio.sleep(0.01)
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    @property
    def alive(self) -> bool:
        """False once the worker has ended for whatever reason; the replica is then unhealthy."""
        return self._worker is not None and not self._worker.done()

    @property
    def waiting(self) -> int:
        """Texts in the queue, those in the running batch not counted."""
        return len(self._waiting)

    async def submit(self, rows: Sequence[list[int]], deadline: float) -> NDArray[np.float32]:
        """Outputs of `rows`, (len(rows), labels or dimensions), in order.

        `deadline` is on the clock of time.monotonic. Raises DeadlineExceeded when it passes first, and whatever
        the model raised for this text. When the caller is cancelled its texts leave the queue.
        """
        loop = asyncio.get_running_loop()
        entries = [_Entry(ids, deadline, loop.create_future()) for ids in rows]
        self._waiting += entries
        self._arrived.set()
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return np.stack([await entry.future for entry in entries])
        except TimeoutError:
            for entry in entries:
                entry.expired = True
            raise DeadlineExceeded(_TOO_LATE) from None
        finally:
            for entry in entries:
                if not entry.future.cancel() and not entry.future.cancelled():
                    entry.future.exception()  # looked at, so that asyncio does not report it as forgotten

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            batch = self._take()
            if not self._waiting:
                self._arrived.clear()
            if batch:
                self._running = True
                await self._answer(batch)
                self._running = False

    def _take(self) -> list[_Entry]:
        """The oldest waiting text and those near it in length, shortest first; drops those nobody waits for."""
        now = time.monotonic()
        alive = []
        for entry in self._waiting:
            if entry.future.done():
                self._metrics.dropped("deadline" if entry.expired else "client_left")
            elif entry.deadline <= now:
                self._metrics.dropped("deadline")
                entry.future.set_exception(DeadlineExceeded(_TOO_LATE))
            else:
                alive.append(entry)
        if not alive:
            self._waiting = []
            return []
        oldest = alive[0]
        alive.sort(key=lambda entry: len(entry.ids))
        # Windows of similar length, and the one with the oldest text goes first: nobody is overtaken for ever.
        start, longest = 0, self._longest(alive[0])
        for i, entry in enumerate(alive):
            if len(entry.ids) > longest or i - start >= self._settings.texts:
                if any(e is oldest for e in alive[start:i]):
                    break
                start, longest = i, self._longest(entry)
        else:
            i = len(alive)
        batch = alive[start:i]
        rest = alive[:start] + alive[i:]
        rest.sort(key=lambda entry: entry.since)
        self._waiting = rest
        return batch

    def _longest(self, first: _Entry) -> float:
        return len(first.ids) * self._settings.growth + 1

    async def _answer(self, batch: list[_Entry]) -> None:
        loop = asyncio.get_running_loop()
        started = time.monotonic()
        self._metrics.stage(self._version, "queue", started - batch[0].since)
        try:
            output = await loop.run_in_executor(self._executor, self._run, [entry.ids for entry in batch])
        except Exception as error:
            if len(batch) == 1:
                _fail(batch[0], error)
                return
            # One bad text must not fail its batch-mates: try each alone.
            for entry in batch:
                await self._answer([entry])
            return
        self._metrics.batch(self._version, len(batch), time.monotonic() - started)
        for entry, row in zip(batch, output, strict=True):
            if not entry.future.done():
                entry.future.set_result(row)


def _fail(entry: _Entry, error: Exception) -> None:
    if not entry.future.done():
        entry.future.set_exception(error)
