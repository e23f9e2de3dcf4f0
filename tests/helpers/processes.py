"""The same work in several processes at once, each with a store of its own."""

from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Barrier
from typing import Any

from models.feedback.store import Store

SPAWN = multiprocessing.get_context("spawn")
PROCESSES = 4
TIMEOUT_S = 120


def together(worker: Any, url: str) -> list[Any]:
    """What `worker(store, number)` returned in each of four processes that began at the same moment."""
    answers = SPAWN.SimpleQueue()
    barrier = SPAWN.Barrier(PROCESSES)
    processes = [SPAWN.Process(target=_run, args=(worker, url, i, barrier, answers)) for i in range(PROCESSES)]
    for process in processes:
        process.start()
    results = []
    for process in processes:
        process.join(TIMEOUT_S)
        if process.exitcode is None:
            process.kill()
        assert process.exitcode == 0
        results.append(answers.get())
    return results


def _run(worker: Any, url: str, number: int, barrier: Barrier, answers: Any) -> None:
    barrier.wait(TIMEOUT_S)
    store = Store.open(url, patience_s=60)
    try:
        answers.put(worker(store, number))
    finally:
        store.close()
