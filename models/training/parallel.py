"""Several trainings in parallel processes, one torch thread a core."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from multiprocessing.managers import SyncManager
from pathlib import Path
from queue import Empty
from typing import Any

from export.machine import usable_cores
from models.training.candidate import TrainedCandidate, TrainingJob
from models.training.pipeline import build_candidate

_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def build_in_parallel(
    jobs: Sequence[TrainingJob], home: Path, report: Callable[[str, str, int, int], None]
) -> Iterator[TrainedCandidate]:
    """Build several candidates in parallel, with as many torch threads in all as cores.

    `report` is called with (task, stage, done, total). Two trainings of one thread each finish sooner than one after
    the other with two (docs/decisions/0005-training-recipe.md). Yields each candidate when it is done; raises the
    first failure that it meets.
    """
    cores = usable_cores()
    workers = min(cores, len(jobs))
    spawn = multiprocessing.get_context("spawn")
    manager = SyncManager(ctx=spawn)
    manager.start(_end_with_parent)
    with manager, ProcessPoolExecutor(workers, spawn, _end_with_parent) as pool:
        queue = manager.Queue()
        threads = max(1, cores // workers)
        jobs = [replace(job, recipe=(*job.recipe, ("threads", threads))) for job in jobs]
        waiting: set[Future[TrainedCandidate]] = {pool.submit(_build_and_report, job, home, queue) for job in jobs}
        try:
            while waiting:
                finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                while True:
                    try:
                        report(*queue.get_nowait())
                    except Empty:
                        break
                yield from (future.result() for future in finished)
        except (KeyboardInterrupt, GeneratorExit):  # nobody waits for the others, which the pool would wait for
            for process in multiprocessing.active_children():
                process.kill()
            raise


def _end_with_parent() -> None:
    """Have the kernel end this process with its parent, however that ends: it would train for hours, and for nobody."""
    with suppress(OSError, AttributeError):  # another system than Linux
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it has ended already
        os._exit(1)


def _build_and_report(job: TrainingJob, home: Path, queue: Any) -> TrainedCandidate:
    logging.getLogger().setLevel(logging.ERROR)
    return build_candidate(job, home, lambda stage, done, total: queue.put((job.task, stage, done, total)))
