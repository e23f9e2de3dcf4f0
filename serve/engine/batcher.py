"""Continuous batching: texts that queue while the model is busy form the next batch, grouped by length against padding.

One batcher per loaded version. It never waits for a batch to fill: an idle model runs a single text at once, and a busy
one finds more texts in the queue, so batch size grows with load, without a timer. A text whose output is cached or in
flight is not run again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from export.tokenizer import Ids
from serve.config import BatchingConfig
from serve.engine.queue import Entry, QueuedRequest, RequestQueue, Row
from serve.errors import ClientLeft, DeadlineExceeded, NotReady
from serve.metrics import Metrics

_TOO_LATE = "the deadline passed before the model answered"
# A batch is bounded to milliseconds of work; one that still runs after this time is considered hung.
_HUNG_S = 60.0
# With more work than this, batches run in a thread, so that cache hits and load shedding are not blocked by them.
_INLINE_BELOW_S = 0.15
# Batches on the event loop follow each other for this long before it has its turns to read and answer requests: early
# answers would otherwise delay the texts of the encoder by a turn a batch (docs/decisions/0038-edge.md).
_TURNS_EVERY_S = 0.01

Run = Callable[[Sequence[Ids]], NDArray[np.float32]]
ObserveWait = Callable[[float, float], None]


class Batcher:
    """Feeds `run` from a queue, on `executor`, one batch at a time.

    - `observe_wait(seconds, now)`: called once per request after its first batch, with its time in the queue and the
      batch's start (time.monotonic).
    - `cache_size`: number of outputs cached, keyed by token ids, which are the model's whole input.
    - `inline`: run batches on the event loop while there is little work.
    - `seconds_per_token`: initial estimate of a token's cost.
    - `padding_cost`: cost of a padding token as a fraction of a token's.
    """

    def __init__(
        self,
        run: Run,
        executor: Executor,
        settings: BatchingConfig,
        metrics: Metrics,
        version: str,
        *,
        observe_wait: ObserveWait = lambda seconds, now: None,
        cache_size: int = 0,
        inline: bool = False,
        seconds_per_token: float = 0.0,
        padding_cost: float = 1.0,
    ):
        self._run = run
        self._executor = executor
        self._inline = inline
        self._metrics = metrics
        self._version = version
        self._observe_wait = observe_wait
        self._queue = RequestQueue(settings, seconds_per_token, padding_cost)
        self._cache: LRUCache[Ids, Row] | None = LRUCache(cache_size) if cache_size else None
        self._in_flight: dict[Ids, Entry] = {}  # queued or running; used only with a cache
        self._running: Sequence[Entry] = ()
        self._running_since = 0.0
        # Since when the model has been idle while texts were queued. The event loop's work between two batches delays
        # requests as the model does, so it is part of the estimated wait.
        self._free_since: float | None = None
        self._arrived = asyncio.Event()
        self._turned_at = 0.0  # when the event loop had its last turn before a batch
        self._loop: asyncio.AbstractEventLoop
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()  # cached, since get_running_loop is a system call
        self._worker = self._loop.create_task(self._work(), name=f"batcher-{self._version}")

    async def stop(self) -> None:
        """Finish the queued and the running texts, then end the worker."""
        while (self._queue or self._running) and self.alive:  # noqa: ASYNC110  an event would cost every batch for one shutdown
            await asyncio.sleep(0.01)
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    @property
    def alive(self) -> bool:
        """False when the worker has ended or hangs in a batch; the replica is then unhealthy."""
        hangs = self._running and time.monotonic() - self._running_since > _HUNG_S
        return self._worker is not None and not self._worker.done() and not hangs

    @property
    def waiting(self) -> int:
        """Texts in the queue, those in the running batch not counted."""
        return len(self._queue)

    @property
    def backlog_s(self) -> float:
        """Seconds of work in the queue."""
        return self._queue.seconds

    def oldest_s(self) -> float:
        """Age in seconds of the text that has been in the queue for the longest time; 0 when it is empty."""
        return time.monotonic() - since if (since := self._queue.oldest_since()) is not None else 0.0

    def wait_s(self, tokens: int) -> float:
        """Seconds of work, running or queued, ahead of a request of `tokens` that arrives now."""
        remaining = self._running_since + self._queue.seconds_of(self._running) - time.monotonic()
        return max(0.0, remaining) + self._queue.seconds_before(tokens)

    def is_cached(self, ids: Ids) -> bool:
        """Whether the text's output is cached or in flight, so that the model need not run for it."""
        return self._cache is not None and (ids in self._cache or ids in self._in_flight)

    async def submit(
        self,
        rows: Sequence[Ids],
        deadline: float,
        disconnected: Callable[[], bool] = bool,
        *,
        cached: bool = True,
    ) -> NDArray[np.float32]:
        """Outputs of `rows` (token ids of each text) in order, of shape (len(rows), labels or dimensions).

        `deadline` is in time.monotonic. Raises DeadlineExceeded when it passes first, ClientLeft when `disconnected()`
        is true before the model has started, and any error that the model raised for one of the texts. When the caller
        is cancelled, its texts leave the queue. With `cached` false, the cache is neither read nor written.
        """
        request = QueuedRequest(
            deadline, self._loop.create_future(), [None] * len(rows), len(rows), disconnected=disconnected
        )
        cached = cached and self._cache is not None
        missing = self._uncached(request, rows) if cached else [(ids, [i]) for i, ids in enumerate(rows)]
        if missing:
            entries = self._queue.add(request, missing)
            if cached:
                self._in_flight |= {entry.ids: entry for entry in entries}
            self._arrived.set()
        if request.future.done():
            return _stacked(request.future.result())
        late = self._loop.call_later(deadline - time.monotonic(), _expire, request)
        try:
            return _stacked(await request.future)
        finally:
            late.cancel()

    def _uncached(self, request: QueuedRequest, texts: Sequence[Ids]) -> list[tuple[Ids, list[int]]]:
        """Fill in cached outputs, join texts in flight, and return the others: each text once, with its indexes."""
        assert self._cache is not None
        uncached: dict[Ids, list[int]] = {}
        hits = joined = 0
        for index, ids in enumerate(texts):
            if (row := self._cache.get(ids)) is not None:
                request.set_output(index, row)
                hits += 1
            elif (entry := self._in_flight.get(ids)) is not None:
                self._queue.join(request, entry, index)
                joined += 1
            else:
                uncached.setdefault(ids, []).append(index)
        self._metrics.cache(self._version, hits, joined, len(texts) - hits - joined)
        return list(uncached.items())

    async def _work(self) -> None:
        try:
            while True:
                await self._arrived.wait()
                if self._runs_inline and self._turn_is_due:
                    await asyncio.sleep(0)  # the event loop reads requests, which may join this batch
                    self._turned_at = time.monotonic()
                self._report_dropped(self._queue.drop())
                batch = self._without_abandoned(self._queue.take())
                if not self._queue:
                    self._arrived.clear()
                if batch:
                    self._running, self._running_since = batch, time.monotonic()
                    await self._run_batch(batch)
                    self._report_waits(batch)
                    self._running = ()
                elif not self._queue:
                    self._free_since = None  # every queued text was dropped, so the model missed no work
        finally:
            # Waiting requests fail at once; the replica reports that it is unhealthy and is replaced.
            for entry in [*self._running, *self._queue.clear()]:
                entry.fail(NotReady("the model's worker has died; the replica is being replaced", retry_after=5))

    @property
    def _turn_is_due(self) -> bool:
        return time.monotonic() - self._turned_at > _TURNS_EVERY_S

    @property
    def _runs_inline(self) -> bool:
        """Whether the next batch runs on the event loop, which then handles requests only between batches."""
        return self._inline and self._queue.seconds + self._queue.seconds_of(self._running) < _INLINE_BELOW_S

    def _without_abandoned(self, taken: list[Entry]) -> list[Entry]:
        """`taken` without its abandoned texts, which the model must not run."""
        now = time.monotonic()
        dead = [entry for entry in taken if entry.abandoned(now)]
        self._report_dropped(dead)
        return [entry for entry in taken if entry not in dead] if dead else taken

    def _report_dropped(self, dead: Sequence[Entry]) -> None:
        now = time.monotonic()
        for entry in dead:
            self._has_left(entry)
            expired = any(request.deadline <= now for request, _ in entry.places)
            self._metrics.dropped("expired" if expired else "cancelled")
            entry.fail(
                DeadlineExceeded(_TOO_LATE) if expired else ClientLeft("the client disconnected before its texts ran")
            )

    def _report_waits(self, batch: Sequence[Entry]) -> None:
        longest = self._running_since - min(entry.since for entry in batch)
        self._metrics.stage(self._version, "queue", longest)
        for entry in batch:
            for request, _ in entry.places:
                if not request.started and request.since <= self._running_since:  # else it joined a running text
                    request.started = True
                    self._observe_wait(self._running_since - request.since, self._running_since)

    async def _run_batch(self, batch: Sequence[Entry]) -> None:
        started = time.monotonic()
        rows = [entry.ids for entry in batch]
        try:
            if self._runs_inline:
                output, seconds = self._timed(rows)
            else:
                output, seconds = await self._loop.run_in_executor(self._executor, self._timed, rows)
        except Exception as error:
            if len(batch) == 1:
                self._has_left(batch[0])
                batch[0].fail(error)
                return
            # One bad text must not fail the others of its batch: run each alone.
            for entry in batch:
                await self._run_batch([entry])
            return
        if len(output) != len(batch):
            raise RuntimeError(f"the model gave {len(output)} outputs for {len(batch)} texts")
        ended = time.monotonic()
        for entry, row in zip(batch, output, strict=True):
            if self._cache is not None and self._has_left(entry):
                self._cache[entry.ids] = row.copy()  # a view would keep the whole batch in memory
            entry.set_output(row)
        if self._turn_is_due or not self._queue:
            await asyncio.sleep(0)  # lets the responses be sent before the bookkeeping
        self._queue.observe_batch(sum(entry.length for entry in batch), ended - (self._free_since or started))
        self._free_since = ended if self._queue else None
        self._metrics.batch(self._version, [entry.length for entry in batch], seconds)

    def _has_left(self, entry: Entry) -> bool:
        """Take `entry` out of those in flight; whether it was one, so that its output is to be cached."""
        if self._in_flight.get(entry.ids) is not entry:
            return False
        del self._in_flight[entry.ids]
        return True

    def _timed(self, rows: Sequence[Ids]) -> tuple[NDArray[np.float32], float]:
        """The output and the model's own run time; time in the executor's queue, behind other versions, is excluded."""
        began = time.monotonic()
        output = self._run(rows)
        return output, time.monotonic() - began


def _expire(request: QueuedRequest) -> None:
    request.fail(DeadlineExceeded(_TOO_LATE))


def _stacked(rows: Sequence[Row]) -> NDArray[np.float32]:
    return rows[0][None] if len(rows) == 1 else np.stack(rows)
