"""Batching: whatever waits while the model is busy goes next, grouped by length so that padding is bounded.

One batcher a loaded version. It never waits for a batch to fill: an idle model takes one text at once, a busy one
finds more of them waiting, and so the batch grows with the load and not with a timer. A text that was answered before,
or is being answered now, is not run again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from export.tokenizer import Ids
from serve.config import Batching
from serve.engine.queue import Entry, Job, RequestQueue, Row
from serve.errors import ClientLeft, DeadlineExceeded, NotReady
from serve.metrics import Metrics

_TOO_LATE = "the deadline passed before the model answered"
# A batch is bounded to some milliseconds of work: one that still runs after this hangs.
_HUNG_S = 60.0
# More work than this goes to a thread, so that cache hits and load shedding are not blocked by a running batch.
_INLINE_BELOW_S = 0.15
# Between two batches on the event loop: in three turns answers leave, and what has come is read, parsed and queued. New
# connections are accepted a few a turn, so it goes on until a turn had nothing to do, or the model has waited for long.
_TURNS = 3
_IDLE_TURN_S = 50e-6
_MAX_TURNS_S = 5e-3
# For so long the event loop stays awake for who asks again at once, as one client alone does: a virtual machine's core
# that sleeps is slow to wake, and its caches are taken by others.
_AWAKE_S = 1e-3

Run = Callable[[Sequence[Sequence[int]]], NDArray[np.float32]]
Waited = Callable[[float, float], None]


class Batcher:
    """Feeds `run` from a queue, on `executor`, one batch at a time.

    - `waited(seconds, now)` is called after a batch for each of its requests: how long it had waited when the batch
      began at `now`, on the clock of time.monotonic.
    - `cache_size`: texts whose outputs are kept, by their token ids, which are all that the model sees of a text.
    - `inline`: run batches on the event loop while there is little work.
    - `seconds_a_token`: a first guess of what a token costs; `padding_cost`: what a token of padding costs, of that.
    """

    def __init__(
        self,
        run: Run,
        executor: Executor,
        settings: Batching,
        metrics: Metrics,
        version: str,
        *,
        waited: Waited = lambda seconds, now: None,
        cache_size: int = 0,
        inline: bool = False,
        seconds_a_token: float = 0.0,
        padding_cost: float = 1.0,
    ):
        self._run = run
        self._executor = executor
        self._inline = inline
        self._metrics = metrics
        self._version = version
        self._waited = waited
        self._waiting = RequestQueue(settings, seconds_a_token, padding_cost)
        self._cache: LRUCache[Ids, Row] | None = LRUCache(cache_size) if cache_size else None
        self._in_flight: dict[Ids, Entry] = {}  # waiting or running, where there is a cache
        self._running: Sequence[Entry] = ()
        self._running_since = 0.0
        # Since when the model has been free while there was work. What the event loop does in between delays requests
        # as much as the model does, and belongs in the estimate of a wait.
        self._free_since: float | None = None
        self._arrived = asyncio.Event()
        self._last_idle_s = math.inf  # the last time that there was nothing to do
        self._was_alone = False  # the text that ran last
        self._loop: asyncio.AbstractEventLoop
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()  # kept: asking for it is a system call
        self._worker = self._loop.create_task(self._work(), name=f"batcher-{self._version}")

    async def stop(self) -> None:
        """Finish what waits and what runs, then end the worker."""
        while (self._waiting or self._running) and self.alive:  # noqa: ASYNC110  an event would cost every batch for one shutdown
            await asyncio.sleep(0.01)
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    @property
    def alive(self) -> bool:
        """False once the worker has ended for whatever reason, or hangs in a batch; the replica is then unhealthy."""
        hangs = self._running and time.monotonic() - self._running_since > _HUNG_S
        return self._worker is not None and not self._worker.done() and not hangs

    @property
    def waiting(self) -> int:
        """Texts in the queue, those in the running batch not counted."""
        return len(self._waiting)

    @property
    def backlog_s(self) -> float:
        """Seconds of work in the queue."""
        return self._waiting.seconds

    def wait_s(self, tokens: int) -> float:
        """Seconds of work, running or queued, that goes before a request of `tokens` that arrives now."""
        remaining = self._running_since + self._waiting.seconds_of(self._running) - time.monotonic()
        return max(0.0, remaining) + self._waiting.seconds_before(tokens)

    def is_cached(self, ids: Ids) -> bool:
        """Whether a text costs the model nothing more: its output is cached, or in flight."""
        return self._cache is not None and (ids in self._cache or ids in self._in_flight)

    async def submit(
        self, rows: Sequence[Ids], deadline: float, disconnected: Callable[[], bool] = bool
    ) -> NDArray[np.float32]:
        """Outputs of `rows` (token ids), (len(rows), labels or dimensions), in order.

        `deadline` is on the clock of time.monotonic. Raises DeadlineExceeded when it passes first, ClientLeft when
        `disconnected()` turns true before the model has started, and whatever the model raised for one of the texts.
        When the caller is cancelled its texts leave the queue.
        """
        job = Job(deadline, self._loop.create_future(), [None] * len(rows), len(rows), disconnected=disconnected)
        missing = [(ids, [i]) for i, ids in enumerate(rows)] if self._cache is None else self._uncached(job, rows)
        if missing:
            entries = self._waiting.add(job, missing)
            if self._cache is not None:
                self._in_flight |= {entry.ids: entry for entry in entries}
            self._arrived.set()
        if job.future.done():
            return _stacked(job.future.result())
        late = self._loop.call_later(deadline - time.monotonic(), _expire, job)
        try:
            return _stacked(await job.future)
        finally:
            late.cancel()

    def _uncached(self, job: Job, texts: Sequence[Ids]) -> list[tuple[Ids, list[int]]]:
        """Answer what is cached, join what is in flight, and return the rest, each text once, with its places."""
        assert self._cache is not None
        uncached: dict[Ids, list[int]] = {}
        hits = joined = 0
        for index, ids in enumerate(texts):
            if (row := self._cache.get(ids)) is not None:
                job.answer(index, row)
                hits += 1
            elif (entry := self._in_flight.get(ids)) is not None:
                self._waiting.join(job, entry, index)
                joined += 1
            else:
                uncached.setdefault(ids, []).append(index)
        self._metrics.cache(self._version, hits, joined, len(texts) - hits - joined)
        return list(uncached.items())

    async def _work(self) -> None:
        try:
            while True:
                await self._wait_for_work()
                if self._runs_inline:
                    await _catch_up()
                self._report_dropped(self._waiting.drop())
                batch = self._without_abandoned(self._waiting.take())
                if not self._waiting:
                    self._arrived.clear()
                if batch:
                    self._was_alone = len(batch) == 1
                    self._running, self._running_since = batch, time.monotonic()
                    await self._answer(batch)
                    self._report_waits(batch)
                    self._running = ()
                elif not self._waiting:
                    self._free_since = None  # all that waited was dropped: the model was not kept from anything
        finally:
            # Waiting requests fail at once; the replica reports that it is unhealthy and is replaced.
            for entry in [*self._running, *self._waiting.clear()]:
                entry.fail(NotReady("the model's worker has died; the replica is being replaced", retry_after=5))

    async def _wait_for_work(self) -> None:
        """Return when there is work; without sleeping first where a single client asks again at once."""
        if self._arrived.is_set():
            return
        began = time.monotonic()
        if self._inline and self._was_alone and self._last_idle_s < _AWAKE_S:
            while not self._arrived.is_set() and time.monotonic() - began < _AWAKE_S:  # noqa: ASYNC110  see _AWAKE_S
                await asyncio.sleep(0)
        await self._arrived.wait()
        self._last_idle_s = time.monotonic() - began

    @property
    def _runs_inline(self) -> bool:
        """Whether a batch runs on the event loop: between two of them it reads and answers many requests at once."""
        return self._inline and self._waiting.seconds + self._waiting.seconds_of(self._running) < _INLINE_BELOW_S

    def _without_abandoned(self, taken: list[Entry]) -> list[Entry]:
        """`taken` without abandoned texts, on which the model must not spend any time."""
        now = time.monotonic()
        dead = [entry for entry in taken if entry.abandoned(now)]
        self._report_dropped(dead)
        return [entry for entry in taken if entry not in dead] if dead else taken

    def _report_dropped(self, dead: Sequence[Entry]) -> None:
        now = time.monotonic()
        for entry in dead:
            self._in_flight.pop(entry.ids, None)
            expired = any(job.deadline <= now for job, _ in entry.places)
            self._metrics.dropped("deadline" if expired else "client_left")
            entry.fail(DeadlineExceeded(_TOO_LATE) if expired else ClientLeft("the client left while its texts waited"))

    def _report_waits(self, batch: Sequence[Entry]) -> None:
        longest = self._running_since - min(entry.since for entry in batch)
        self._metrics.stage(self._version, "queue", longest)
        for entry in batch:
            for job, _ in entry.places:
                if not job.started and job.since <= self._running_since:  # or it joined a text that ran already
                    job.started = True
                    self._waited(self._running_since - job.since, self._running_since)

    async def _answer(self, batch: Sequence[Entry]) -> None:
        started = time.monotonic()
        rows = [entry.ids for entry in batch]
        try:
            if self._runs_inline:
                output, seconds = self._timed(rows)
            else:
                output, seconds = await self._loop.run_in_executor(self._executor, self._timed, rows)
        except Exception as error:
            if len(batch) == 1:
                self._in_flight.pop(batch[0].ids, None)
                batch[0].fail(error)
                return
            # One bad text must not fail its batch-mates: try each alone.
            for entry in batch:
                await self._answer([entry])
            return
        if len(output) != len(batch):
            raise RuntimeError(f"the model gave {len(output)} outputs for {len(batch)} texts")
        ended = time.monotonic()
        for entry, row in zip(batch, output, strict=True):
            if self._cache is not None:
                self._in_flight.pop(entry.ids, None)
                self._cache[entry.ids] = row.copy()  # or the row would keep its whole batch in memory
            entry.answer(row)
        await asyncio.sleep(0)  # the answers are sent now, before anything is counted
        self._waiting.ran(sum(entry.length for entry in batch), ended - (self._free_since or started))
        self._free_since = ended if self._waiting else None
        self._metrics.batch(self._version, len(batch), seconds)

    def _timed(self, rows: Sequence[Ids]) -> tuple[NDArray[np.float32], float]:
        """The output, and the seconds the model itself took: another version's batch may have the thread before."""
        began = time.monotonic()
        output = self._run(rows)
        return output, time.monotonic() - began


async def _catch_up() -> None:
    """Let the event loop do what there is for it to do, before a batch runs on it."""
    began = now = time.monotonic()
    turns, idle = 0, False
    while turns < _TURNS or not (idle or now - began > _MAX_TURNS_S):
        await asyncio.sleep(0)
        before, now = now, time.monotonic()
        turns, idle = turns + 1, now - before < _IDLE_TURN_S


def _expire(job: Job) -> None:
    job.fail(DeadlineExceeded(_TOO_LATE))


def _stacked(rows: Sequence[Row]) -> NDArray[np.float32]:
    return rows[0][None] if len(rows) == 1 else np.stack(rows)
