"""The batcher keeps order, bounds its batches, starves nobody, and fails nobody for another's text."""

from __future__ import annotations

import asyncio
import functools
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import REGISTRY

from serve.batcher import Batcher
from serve.config import Batching
from serve.errors import DeadlineExceeded
from serve.metrics import Metrics

BAD = -1
Rows = list[list[int]]


@pytest.fixture(scope="module")
def metrics() -> Iterator[Metrics]:
    """Registered in the process's registry, and taken out of it again for whoever builds the next."""
    before = set(REGISTRY._names_to_collectors.values())
    yield Metrics("test")
    for collector in set(REGISTRY._names_to_collectors.values()) - before:
        REGISTRY.unregister(collector)


def dropped(reason: str) -> float:
    labels = {"task": "test", "reason": reason}
    return REGISTRY.get_sample_value("flywheel_dropped_texts_total", labels) or 0.0


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in a loop of its own."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


class Model:
    """Answers each text with its first id; remembers its batches; runs while `gate` is open."""

    def __init__(self) -> None:
        self.batches: list[Rows] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        self.batches.append([list(row) for row in rows])
        assert self.gate.wait(20)
        if any(row[0] == BAD for row in rows):
            raise ValueError("a bad text")
        return np.array([[row[0], len(row)] for row in rows], np.float32)

    @property
    def seen(self) -> set[int]:
        return {row[0] for batch in self.batches for row in batch}


@pytest.fixture
def model() -> Model:
    return Model()


@asynccontextmanager
async def batching(metrics: Metrics, run: Any, **settings: Any) -> AsyncIterator[Batcher]:
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(run, executor, Batching(**settings), metrics, "1")
        batcher.start()
        try:
            yield batcher
        finally:
            await batcher.stop()


@asynccontextmanager
async def busy(metrics: Metrics, model: Model, **settings: Any) -> AsyncIterator[Batcher]:
    """A batcher whose model is held at a first text, 0, so that what is submitted now waits."""
    model.gate.clear()
    async with batching(metrics, model, **settings) as batcher:
        first = asyncio.create_task(batcher.submit([[0]], soon()))
        while not model.batches:  # noqa: ASYNC110  another thread sets it
            await asyncio.sleep(0.001)
        try:
            yield batcher
        finally:
            model.gate.set()
        await first


def soon(seconds: float = 20) -> float:
    return time.monotonic() + seconds


def text(number: int, length: int) -> list[int]:
    return [number] + [7] * (length - 1)


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(5))
def test_outputs_are_in_the_order_of_the_rows(metrics: Metrics, seed: int) -> None:
    rng = random.Random(seed)
    requests = [
        [text(rng.randrange(1000), rng.randrange(1, 60)) for _ in range(rng.randrange(1, 20))] for _ in "x" * 30
    ]

    async def scenario() -> list[NDArray[np.float32]]:
        async with batching(metrics, Model(), texts=8) as batcher:
            return await asyncio.gather(*(batcher.submit(rows, soon()) for rows in requests))

    for rows, output in zip(requests, asyncio.run(scenario()), strict=True):
        assert output.tolist() == [[row[0], len(row)] for row in rows]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("texts", "growth"), [(8, 1.25), (64, 1.0), (3, 2.0), (1, 1.25)])
@in_loop
async def test_batches_are_bounded_and_the_oldest_goes_first(
    metrics: Metrics, model: Model, seed: int, texts: int, growth: float
) -> None:
    rng = random.Random(seed)
    numbers = range(1, 150)
    async with busy(metrics, model, texts=texts, growth=growth) as batcher:
        tasks = [
            asyncio.create_task(batcher.submit([text(n, int(rng.paretovariate(0.6)) % 128 + 1)], soon()))
            for n in numbers
        ]
        await settle()
        assert batcher.waiting == len(numbers)
        model.gate.set()
        await asyncio.gather(*tasks)

    left = set(numbers)
    for batch in model.batches[1:]:
        lengths = [len(row) for row in batch]
        assert len(batch) <= texts
        assert max(lengths) <= min(lengths) * growth + 1
        assert min(left) in {row[0] for row in batch}, "the oldest text was overtaken"
        left -= {row[0] for row in batch}
    assert not left


@in_loop
async def test_a_long_text_is_not_starved_by_a_stream_of_short_ones(metrics: Metrics, model: Model) -> None:
    stop = False

    async def stream(batcher: Batcher) -> None:
        while not stop:
            await batcher.submit([text(1, 2)] * 4, soon())

    async with batching(metrics, model, texts=4) as batcher:
        streams = [asyncio.create_task(stream(batcher)) for _ in range(6)]
        await asyncio.sleep(0.05)
        before = len(model.batches)
        await batcher.submit([text(2, 100)], soon())
        # What waited before it may go first: 6 streams of 4 texts.
        assert len(model.batches) - before < 20
        stop = True
        await asyncio.gather(*streams)


@in_loop
async def test_what_waits_becomes_one_batch(metrics: Metrics, model: Model) -> None:
    async with busy(metrics, model) as batcher:
        tasks = [asyncio.create_task(batcher.submit([text(n, 5)], soon())) for n in range(1, 41)]
        await settle()
        model.gate.set()
        await asyncio.gather(*tasks)

    assert [len(batch) for batch in model.batches] == [1, 40]


@in_loop
async def test_a_text_whose_run_raises_fails_alone(metrics: Metrics, model: Model) -> None:
    requests = [[text(1, 5)], [text(BAD, 5)], [text(3, 5)], [text(4, 5), text(BAD, 5)]]
    async with busy(metrics, model) as batcher:
        tasks = [asyncio.create_task(batcher.submit(rows, soon())) for rows in requests]
        await settle()
        model.gate.set()
        one, bad, three, mixed = await asyncio.gather(*tasks, return_exceptions=True)
        later = await batcher.submit([text(5, 5)], soon())
        assert batcher.alive
    assert (one[0, 0], three[0, 0], later[0, 0]) == (1, 3, 5)
    for error in (bad, mixed):
        assert isinstance(error, ValueError)
        assert str(error) == "a bad text"


@in_loop
async def test_the_texts_of_a_caller_who_left_are_dropped(metrics: Metrics, model: Model) -> None:
    before = dropped("client_left")

    async with busy(metrics, model) as batcher:
        gone = asyncio.create_task(batcher.submit([text(1, 5), text(2, 5)], soon()))
        stays = asyncio.create_task(batcher.submit([text(3, 5)], soon()))
        await settle()
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        model.gate.set()
        assert (await stays)[0, 0] == 3

    assert model.seen == {0, 3}
    assert dropped("client_left") - before == 2


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.05])
@in_loop
async def test_a_deadline_that_passes_while_waiting(metrics: Metrics, model: Model, seconds: float) -> None:
    before = dropped("deadline"), dropped("client_left")

    async with busy(metrics, model) as batcher:
        with pytest.raises(DeadlineExceeded):
            await batcher.submit([text(1, 5)], soon(seconds))
        stays = asyncio.create_task(batcher.submit([text(2, 5)], soon()))
        await settle()
        model.gate.set()
        await stays

    assert model.seen == {0, 2}
    assert (dropped("deadline") - before[0], dropped("client_left") - before[1]) == (1, 0)


@in_loop
async def test_a_deadline_that_passes_while_the_loop_is_blocked(metrics: Metrics) -> None:
    """The caller hears DeadlineExceeded, never that it was cancelled itself."""

    async def block() -> None:
        await asyncio.sleep(0)
        time.sleep(0.1)  # noqa: ASYNC251  what tokenizing a large request does

    async with batching(metrics, Model()) as batcher:
        blocking = asyncio.create_task(block())
        submitted = asyncio.create_task(batcher.submit([text(1, 5)], soon(0.05)))
        with pytest.raises(DeadlineExceeded):
            await submitted
        await blocking


@in_loop
async def test_stop_finishes_what_waits(metrics: Metrics, model: Model) -> None:
    async with busy(metrics, model, texts=4) as batcher:
        tasks = [asyncio.create_task(batcher.submit([text(n, 5)], soon(5))) for n in range(1, 31)]
        await settle()
        stopping = asyncio.create_task(batcher.stop())
        await settle()
        model.gate.set()
        answers = await asyncio.gather(*tasks)
        await stopping
        assert [answer[0, 0] for answer in answers] == list(range(1, 31))
        assert not batcher.alive


@in_loop
async def test_stop_finishes_what_runs(metrics: Metrics, model: Model) -> None:
    model.gate.clear()
    async with batching(metrics, model) as batcher:
        running = asyncio.create_task(batcher.submit([text(1, 5)], soon(2)))
        while not model.batches:  # noqa: ASYNC110  another thread sets it
            await asyncio.sleep(0.001)
        stopping = asyncio.create_task(batcher.stop())
        await asyncio.sleep(0.05)
        model.gate.set()
        assert (await running)[0, 0] == 1
        await stopping


@in_loop
async def test_alive_is_false_before_the_start_and_once_the_worker_has_died(metrics: Metrics) -> None:
    def one_row_too_few(rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        return np.zeros((len(rows) - 1, 2), np.float32)

    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(one_row_too_few, executor, Batching(), metrics, "1")
        assert not batcher.alive
        batcher.start()
        assert batcher.alive
        with pytest.raises(DeadlineExceeded):
            await batcher.submit([text(1, 5)], soon(0.5))
        assert not batcher.alive
        await batcher.stop()
