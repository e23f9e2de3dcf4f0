"""Several trainings in parallel processes, one torch thread a core."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from queue import Empty
from typing import Any

from export.machine import usable_cores
from models.training.candidate import TrainedCandidate, TrainingJob
from models.training.pipeline import build_candidate


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
    with spawn.Manager() as manager, ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        queue = manager.Queue()
        threads = max(1, cores // workers)
        jobs = [replace(job, recipe=(*job.recipe, ("threads", threads))) for job in jobs]
        waiting: set[Future[TrainedCandidate]] = {pool.submit(_build_and_report, job, home, queue) for job in jobs}
        while waiting:
            finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            while True:
                try:
                    report(*queue.get_nowait())
                except Empty:
                    break
            yield from (future.result() for future in finished)


def _build_and_report(job: TrainingJob, home: Path, queue: Any) -> TrainedCandidate:
    logging.getLogger().setLevel(logging.ERROR)
    return build_candidate(job, home, lambda stage, done, total: queue.put((job.task, stage, done, total)))
