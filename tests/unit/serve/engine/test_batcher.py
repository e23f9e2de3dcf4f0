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

from serve.config import BatchingConfig
from serve.engine.batcher import Batcher
from serve.engine.queue import Entry, QueuedRequest, RequestQueue
from serve.errors import ClientLeft, DeadlineExceeded, NotReady
from serve.metrics import Metrics
from tests.helpers.collectors import registry_restored

BAD = -1
Rows = list[list[int]]


@pytest.fixture(scope="module")
def metrics() -> Iterator[Metrics]:
    with registry_restored():
        yield Metrics("test")


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
        options = {key: settings.pop(key) for key in ("cache_size", "inline", "observe_wait") if key in settings}
        batcher = Batcher(run, executor, BatchingConfig(**settings), metrics, "1", **options)
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
        first = asyncio.create_task(batcher.submit([(0,)], soon()))
        while not model.batches:  # noqa: ASYNC110  another thread sets it
            await asyncio.sleep(0.001)
        try:
            yield batcher
        finally:
            model.gate.set()
        await first


def soon(seconds: float = 20) -> float:
    return time.monotonic() + seconds


def text(number: int, length: int) -> tuple[int, ...]:
    return (number,) + (7,) * (length - 1)


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
@pytest.mark.parametrize(
    ("texts", "tokens", "growth"), [(8, 1000, 1.25), (64, 128, 1.25), (64, 64, 1.0), (1, 128, 2.0)]
)
@in_loop
async def test_batches_are_bounded_and_the_oldest_goes_first(
    metrics: Metrics, model: Model, seed: int, texts: int, tokens: int, growth: float
) -> None:
    rng = random.Random(seed)
    numbers = range(1, 150)
    async with busy(metrics, model, texts=texts, tokens=tokens, max_length_ratio=growth) as batcher:
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
        assert len(batch) == 1 or len(batch) * max(lengths) <= tokens
        assert max(lengths) <= min(lengths) * growth + 1
        # Nothing has run when they arrive, so a token costs nothing yet and the order is that of arrival.
        assert min(left) in {row[0] for row in batch}, "the oldest text was overtaken"
        left -= {row[0] for row in batch}
    assert not left


def queue(*requests: tuple[float, int], seconds_per_token: float = 0.001) -> list[int]:
    """The order in which a queue gives out (arrival, length) requests, one a batch: their numbers."""
    waiting = RequestQueue(BatchingConfig(texts=1))
    waiting.observe_batch(1000, 1000 * seconds_per_token)
    loop = asyncio.new_event_loop()
    for number, (since, length) in enumerate(requests):
        waiting.add(
            QueuedRequest(since + 100, loop.create_future(), [None], 1, since=since),
            [(tuple(text(number, length)), [0])],
        )
    loop.close()
    return [entry.ids[0] for _ in requests for entry in waiting.take()]


def test_a_short_text_overtakes_a_long_one_for_a_bounded_time() -> None:
    # 100 tokens take 0.05 s, and so are overtaken for 0.4 s by texts of next to no length.
    assert queue((0.0, 100), (0.25, 1), seconds_per_token=0.0005) == [1, 0]
    assert queue((0.0, 100), (0.45, 1), seconds_per_token=0.0005) == [0, 1]
    assert queue((0.0, 100), (0.0, 100), (0.05, 50), seconds_per_token=0.0005) == [2, 0, 1]
    # However long it is, for half a second.
    assert queue((0.0, 1000), (0.45, 1)) == [1, 0]
    assert queue((0.0, 1000), (0.55, 1)) == [0, 1]


@pytest.mark.parametrize(("age", "expected"), [(0.1, [10, 10]), (1.0, [10, 12])])
def test_a_queue_that_is_far_behind_is_served_by_age(age: float, expected: list[int]) -> None:
    waiting = RequestQueue(BatchingConfig(tokens=24))
    loop = asyncio.new_event_loop()
    for length, since in ((10, age), (12, age - 0.01), (10, 0.0), (10, 0.0)):
        request = QueuedRequest(time.monotonic() + 100, loop.create_future(), [None], 1, time.monotonic() - since)
        waiting.add(request, [(tuple(text(1, length)), [0])])
    assert [entry.length for entry in waiting.take()] == expected
    assert len(waiting) == 2
    assert waiting.seconds == 0.0
    loop.close()


@pytest.mark.parametrize(("padding_cost", "expected"), [(1.0, [10] * 4), (0.2, [10] * 4 + [13])])
def test_a_batch_takes_a_longer_text_where_padding_is_cheap(padding_cost: float, expected: list[int]) -> None:
    waiting = RequestQueue(BatchingConfig(), padding_cost=padding_cost)
    loop = asyncio.new_event_loop()
    for length in (10, 10, 10, 10, 13):
        request = QueuedRequest(time.monotonic() + 100, loop.create_future(), [None], 1)
        waiting.add(request, [(text(1, length), [0])])
    assert [entry.length for entry in waiting.take()] == expected
    loop.close()


def test_a_text_longer_than_a_batch_goes_alone_however_late() -> None:
    waiting = RequestQueue(BatchingConfig(tokens=24))
    loop = asyncio.new_event_loop()
    for _ in range(2):
        request = QueuedRequest(time.monotonic() + 100, loop.create_future(), [None], 1, time.monotonic() - 5)
        waiting.add(request, [(tuple(text(1, 100)), [0])])
    assert [len(waiting.take()) for _ in range(3)] == [1, 1, 0]
    loop.close()


def test_the_wait_is_that_of_the_texts_that_would_go_first() -> None:
    waiting = RequestQueue(BatchingConfig())
    loop = asyncio.new_event_loop()
    waiting.observe_batch(100, 0.1)
    for length in (100, 100, 10):
        request = QueuedRequest(time.monotonic() + 100, loop.create_future(), [None], 1)
        waiting.add(request, [(tuple(text(1, length)), [0])])
    assert waiting.seconds == pytest.approx(0.21)
    assert waiting.seconds_before(20) == pytest.approx(0.01)
    assert waiting.seconds_before(200) == pytest.approx(0.21)
    waiting.take()  # the one of 10
    assert waiting.seconds_before(200) == pytest.approx(0.2)
    loop.close()


def test_what_nobody_waits_for_is_soon_no_work_any_more() -> None:
    waiting = RequestQueue(BatchingConfig(), seconds_per_token=0.001)
    loop = asyncio.new_event_loop()
    requests = [QueuedRequest(time.monotonic() + 100, loop.create_future(), [None], 1) for _ in range(3)]
    for request in requests:
        waiting.add(request, [(text(1, 10), [0])])
    for left, request in enumerate(requests, 1):
        request.future.cancel()
        time.sleep(0.02)  # it is not looked for more often
        assert len(waiting.drop()) == 1
        assert waiting.seconds == pytest.approx(0.01 * (3 - left))
    loop.close()


@in_loop
async def test_known_texts_do_not_run_again(metrics: Metrics, model: Model) -> None:
    async with batching(metrics, model, cache_size=2) as batcher:
        first = await batcher.submit([text(1, 5), text(2, 6), text(1, 5)], soon())
        again = await batcher.submit([text(2, 6), text(1, 5)], soon())
        assert first.tolist() == [[1, 5], [2, 6], [1, 5]]
        assert again.tolist() == [[2, 6], [1, 5]]
        assert sum(map(len, model.batches)) == 2
        await batcher.submit([text(3, 5)], soon())  # forgets 2, the least recently used
        await batcher.submit([text(1, 5)], soon())
        assert sum(map(len, model.batches)) == 3
        await batcher.submit([text(2, 6)], soon())
        assert sum(map(len, model.batches)) == 4


@in_loop
async def test_texts_asked_at_once_run_once_and_outlive_the_one_who_asked_first(metrics: Metrics, model: Model) -> None:
    async with busy(metrics, model, cache_size=10) as batcher:
        first = asyncio.create_task(batcher.submit([text(1, 5)], soon()))
        await settle()
        others = [asyncio.create_task(batcher.submit([text(1, 5), text(2, 5)], soon())) for _ in range(3)]
        joins_running = asyncio.create_task(batcher.submit([(0,)], soon()))
        await settle()
        first.cancel()
        model.gate.set()
        for output in await asyncio.gather(*others):
            assert output.tolist() == [[1, 5], [2, 5]]
        await joins_running
    assert sorted(row[0] for batch in model.batches for row in batch) == [0, 1, 2]


@in_loop
async def test_texts_that_bypass_the_cache_neither_read_nor_change_it(metrics: Metrics, model: Model) -> None:
    async with busy(metrics, model, cache_size=1) as batcher:
        cached = asyncio.create_task(batcher.submit([text(1, 5)], soon()))
        await settle()
        others = [text(1, 5), text(2, 5)]
        bypassing = asyncio.create_task(batcher.submit(others, soon(), cached=False))
        await settle()
        model.gate.set()
        assert (await bypassing).tolist() == [[1, 5], [2, 5]]
        await cached
        assert batcher.is_cached(text(1, 5))
        assert not batcher.is_cached(text(2, 5))
    assert sorted(row[0] for batch in model.batches for row in batch) == [0, 1, 1, 2]


@in_loop
async def test_an_error_is_not_remembered(metrics: Metrics, model: Model) -> None:
    async with batching(metrics, model, cache_size=10) as batcher:
        for _ in range(2):
            with pytest.raises(ValueError, match="a bad text"):
                await batcher.submit([text(BAD, 5)], soon())
        assert len(model.batches) == 2


@in_loop
async def test_a_long_text_is_not_starved_by_a_stream_of_short_ones(metrics: Metrics, model: Model) -> None:
    stop = False

    async def stream(batcher: Batcher) -> None:
        while not stop:
            await batcher.submit([text(1, 2)] * 4, soon())

    async with batching(metrics, model, texts=4) as batcher:
        streams = [asyncio.create_task(stream(batcher)) for _ in range(6)]
        await asyncio.sleep(0.05)
        try:
            # It may be overtaken for eight times the milliseconds it takes, not for the seconds the streams go on.
            await batcher.submit([text(2, 100)], soon(5))
        finally:
            stop = True
        await asyncio.gather(*streams)


@in_loop
async def test_an_idle_model_runs_on_the_loop_and_yields_to_it(metrics: Metrics, model: Model) -> None:
    async with batching(metrics, model, inline=True) as batcher:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        for n in range(20):
            assert (await batcher.submit([text(n, 5)], soon()))[0, 0] == n
        assert ticks >= 20
        ticking.cancel()


@in_loop
async def test_a_model_on_the_loop_leaves_it_a_turn_after_some_milliseconds(metrics: Metrics) -> None:
    """Short batches follow each other without a turn; however many there are, requests are read in between."""
    began: list[int] = []  # the loop's turn in which each batch ran
    turn = 0

    def run(rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        time.sleep(0.006)
        began.append(turn)
        return np.array([[row[0]] for row in rows], np.float32)

    async with batching(metrics, run, inline=True, texts=2) as batcher:
        batcher._queue.observe_batch(10_000, 0.01)  # so little a text that the queue stays short
        answers = [asyncio.create_task(batcher.submit([text(n, 5)], soon())) for n in range(40)]
        while len(began) < 20:
            turn += 1
            await asyncio.sleep(0)
        await asyncio.gather(*answers)
    counts = [began.count(number) for number in sorted(set(began))]
    assert max(counts) <= 4
    assert max(counts) >= 2


@in_loop
async def test_a_long_queue_leaves_the_loop_to_those_who_are_refused(metrics: Metrics) -> None:
    threads: set[int] = set()

    def run(rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        threads.add(threading.get_ident())
        return np.array([[row[0]] for row in rows], np.float32)

    async with batching(metrics, run, inline=True) as batcher:
        await batcher.submit([text(1, 5)], soon())
        assert threads == {threading.get_ident()}
        for _ in range(10):
            batcher._queue.observe_batch(1000, 1000.0)  # a second a token, which it comes to believe
        await asyncio.gather(*(batcher.submit([text(n, 5)], soon()) for n in range(40)))
        assert threads > {threading.get_ident()}


@in_loop
async def test_what_waits_becomes_one_batch(metrics: Metrics, model: Model) -> None:
    async with busy(metrics, model, tokens=200) as batcher:
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
    before = dropped("cancelled")

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
    assert dropped("cancelled") - before == 2


@in_loop
async def test_the_texts_of_a_client_that_hung_up_are_dropped_when_their_turn_comes(
    metrics: Metrics, model: Model
) -> None:
    before = dropped("cancelled")
    hung_up: list[bool] = []

    async with busy(metrics, model) as batcher:
        gone = asyncio.create_task(batcher.submit([text(1, 5), text(2, 5)], soon(), lambda: bool(hung_up)))
        stays = asyncio.create_task(batcher.submit([text(3, 5)], soon(), lambda: False))
        await settle()
        hung_up.append(True)
        model.gate.set()
        with pytest.raises(ClientLeft):
            await gone
        assert (await stays)[0, 0] == 3

    assert model.seen == {0, 3}
    assert dropped("cancelled") - before == 2


@in_loop
async def test_only_an_output_that_is_there_or_on_its_way_makes_a_text_known(metrics: Metrics, model: Model) -> None:
    async with busy(metrics, model, cache_size=10) as batcher:
        gone = asyncio.create_task(batcher.submit([text(1, 5)], soon()))
        await settle()
        assert batcher.is_cached(text(1, 5)), "it waits"
        gone.cancel()
        model.gate.set()
        await batcher.submit([text(2, 5)], soon())
        assert not batcher.is_cached(text(1, 5)), "it was dropped, and would have to run"
        assert batcher.is_cached(text(2, 5))


@in_loop
async def test_idle_time_after_a_queue_that_was_dropped_is_not_taken_for_the_models(metrics: Metrics) -> None:
    def run(rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        time.sleep(0.2)  # long beside what a busy machine adds
        return np.array([[row[0]] for row in rows], np.float32)

    async with batching(metrics, run) as batcher:
        first = asyncio.create_task(batcher.submit([text(1, 5)], soon()))
        await settle()
        gone = asyncio.create_task(batcher.submit([text(2, 50)], soon()))
        await settle()
        gone.cancel()
        await first
        five = [Entry(text(4, 5), 5, 0.0, [])]
        before = batcher._queue.seconds_of(five)
        await asyncio.sleep(10 * before)
        await batcher.submit([text(3, 5)], soon())
        assert batcher._queue.seconds_of(five) < 2 * before  # 5.7 times, were the idle time counted


@in_loop
async def test_the_time_of_a_batch_is_the_models_alone(metrics: Metrics, model: Model) -> None:
    """Two versions share one thread: what one waits for the other says nothing of its own speed."""
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(model, executor, BatchingConfig(), metrics, "waits")
        batcher.start()
        executor.submit(time.sleep, 0.5)
        await batcher.submit([text(1, 5)], soon())
        await batcher.stop()
    labels = {"task": "test", "version": "waits", "stage": "infer"}
    seconds = REGISTRY.get_sample_value("flywheel_stage_seconds_sum", labels)
    assert seconds is not None
    assert seconds < 0.25


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.05])
@in_loop
async def test_a_deadline_that_passes_while_waiting(metrics: Metrics, model: Model, seconds: float) -> None:
    before = dropped("expired"), dropped("cancelled")

    async with busy(metrics, model) as batcher:
        with pytest.raises(DeadlineExceeded):
            await batcher.submit([text(1, 5)], soon(seconds))
        stays = asyncio.create_task(batcher.submit([text(2, 5)], soon()))
        await settle()
        model.gate.set()
        await stays

    assert model.seen == {0, 2}
    assert (dropped("expired") - before[0], dropped("cancelled") - before[1]) == (1, 0)


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
        batcher = Batcher(one_row_too_few, executor, BatchingConfig(), metrics, "1")
        assert not batcher.alive
        batcher.start()
        assert batcher.alive
        waiting = [asyncio.create_task(batcher.submit([text(n, 5)], soon())) for n in (1, 50)]
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, NotReady)
        assert not batcher.alive
        await batcher.stop()


def guessed(batches: Sequence[tuple[int, float]], tokens: int) -> float:
    """Seconds that `tokens` are guessed to take after batches of (tokens, seconds) ran."""
    waiting = RequestQueue(BatchingConfig(), seconds_per_token=1.0)
    for batch in batches:
        waiting.observe_batch(*batch)
    loop = asyncio.new_event_loop()
    waiting.add(QueuedRequest(time.monotonic() + 100, loop.create_future(), [None], 1), [(text(1, tokens), [0])])
    loop.close()
    return waiting.seconds


def test_what_a_token_costs_is_not_the_mean_of_large_and_small_batches() -> None:
    # The mean of both costs would make it 0.165.
    assert guessed([(10, 0.02), (100, 0.1)] * 200, 110) == pytest.approx(0.12, rel=0.05)


def test_one_stall_of_the_machine_is_not_taken_for_its_speed() -> None:
    assert 0.1 < guessed([*[(100, 0.1)] * 200, (100, 60.0)], 100) < 0.25


@in_loop
async def test_each_request_tells_once_how_long_it_waited(metrics: Metrics, model: Model) -> None:
    told: list[tuple[float, float]] = []
    async with busy(metrics, model, texts=4, observe_wait=lambda *wait: told.append(wait)) as batcher:
        arrived = time.monotonic()
        requests = [asyncio.create_task(batcher.submit([text(n, 4)] * 3, soon())) for n in (2, 3)]
        await asyncio.sleep(0.2)
        model.gate.set()
        await asyncio.gather(*requests)
    assert len(told) == 3  # with the one that was busy
    assert told[0][0] < 0.1
    for seconds, now in told[1:]:
        assert 0.19 < seconds <= now - arrived


@in_loop
async def test_an_answer_does_not_wait_for_its_counting(metrics: Metrics, model: Model) -> None:
    order: list[str] = []
    with ThreadPoolExecutor(1) as executor:
        observe_wait = lambda *_: order.append("counted")  # noqa: E731
        batcher = Batcher(model, executor, BatchingConfig(), metrics, "order", observe_wait=observe_wait, inline=True)
        batcher.start()
        await batcher.submit([text(1, 5)], soon())
        order.append("answered")
        await batcher.stop()
    assert order == ["answered", "counted"]


@in_loop
async def test_who_joins_a_text_that_runs_tells_no_wait(metrics: Metrics, model: Model) -> None:
    told: list[float] = []
    model.gate.clear()
    with ThreadPoolExecutor(1) as executor:
        observe_wait = lambda seconds, _: told.append(seconds)  # noqa: E731
        batcher = Batcher(model, executor, BatchingConfig(), metrics, "join", observe_wait=observe_wait, cache_size=10)
        batcher.start()
        first = asyncio.create_task(batcher.submit([text(1, 5)], soon()))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(batcher.submit([text(1, 5)], soon()))
        await asyncio.sleep(0.1)
        model.gate.set()
        await asyncio.gather(first, second)
        await batcher.stop()
    assert len(told) == 1
    assert told[0] >= 0
