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
from models.training.progress import ReportStage

_PR_SET_PDEATHSIG = 1  # of Linux's prctl


Build = Callable[[TrainingJob, Path, ReportStage], TrainedCandidate]


def build_in_parallel(
    jobs: Sequence[TrainingJob],
    home: Path,
    report: Callable[[str, str, int, int], None],
    build: Build = build_candidate,
) -> Iterator[tuple[str, Future[TrainedCandidate]]]:
    """Build several candidates in parallel, with as many torch threads in all as cores.

    `report` is called with (task, stage, done, total). Two trainings of one thread each finish sooner than one after
    the other with two (docs/decisions/0005-training-recipe.md). Yields each task when it has ended, with its candidate
    or its error.
    """
    cores = usable_cores()
    workers = min(cores, len(jobs))
    spawn = multiprocessing.get_context("spawn")
    manager = SyncManager(ctx=spawn)
    manager.start(end_with_parent)
    with manager, ProcessPoolExecutor(workers, spawn, end_with_parent) as pool:
        queue = manager.Queue()
        threads = max(1, cores // workers)
        jobs = [replace(job, recipe=(*job.recipe, ("threads", threads))) for job in jobs]
        task_of = {pool.submit(_build_and_report, build, job, home, queue): job.task for job in jobs}
        waiting = set(task_of)
        try:
            while waiting:
                finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                while True:
                    try:
                        report(*queue.get_nowait())
                    except Empty:
                        break
                yield from ((task_of[future], future) for future in finished)
        except (KeyboardInterrupt, GeneratorExit):  # nobody waits for the others, which the pool would wait for
            for process in multiprocessing.active_children():
                process.kill()
            raise


def end_with_parent() -> None:
    """Have the kernel end this process with its parent, however that ends: it would train for hours, and for nobody."""
    with suppress(OSError, AttributeError):  # another system than Linux
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it has ended already
        os._exit(1)


def _build_and_report(build: Build, job: TrainingJob, home: Path, queue: Any) -> TrainedCandidate:
    logging.getLogger().setLevel(logging.ERROR)
    return build(job, home, lambda stage, done, total: queue.put((job.task, stage, done, total)))
