"""Training and retraining with progress bars: steps, rate and time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from export.machine import user_name
from export.providers import CPU
from export.session import choose_provider
from models.feedback.store import Store
from models.releases.release import ReleaseError, read_release
from models.retraining.plan import Result
from models.training.candidate import TrainingJob
from models.training.parallel import build_in_parallel
from models.training.pipeline import register_candidate
from models.training.unfinished import advice, unfinished_trainings
from serve.config import Config


class TrainExtraMissing(Exception):
    """Raised when an installation without the train extra is asked to train."""


def untrained(config: Config) -> list[str]:
    """The configured tasks that have no released version yet."""
    missing = []
    for task in config.tasks:
        try:
            read_release(config.home, task)
        except ReleaseError:
            missing.append(task)
    return missing


def prepare(config: Config, out: Console) -> None:
    """Train every configured task that has no released version yet."""
    if missing := untrained(config):
        out.print(f"No model yet for {', '.join(missing)}: fine-tuning from the seed corpora, once.")
        precision: Literal["int8", "fp16"] = "int8" if choose_provider("auto") == CPU else "fp16"
        train_jobs([TrainingJob(task, precision=precision) for task in missing], config.home, out)


def train_jobs(jobs: Sequence[TrainingJob], home: Path, out: Console) -> None:
    """Build and register a version for each job, with a progress bar per job.

    Raises TrainExtraMissing.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        raise TrainExtraMissing("Training needs the train extra: pip install 'flywheel-serve[cpu,train]'") from None
    for job in jobs:
        for folder in unfinished_trainings(home, job.task):
            if job.resume is None or folder.resolve() != job.resume.resolve():
                out.print(f"{job.task}: an earlier training, if it runs no more, did not become a version. "
                          f"{advice(folder, job.task)}", highlight=False, markup=False, soft_wrap=True)  # fmt: skip
    columns = (
        TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=out, refresh_per_second=2) as progress:
        bars = {job.task: progress.add_task(f"{job.task}: waiting", total=None, rate="", start=False) for job in jobs}
        plain = _PlainProgress(out) if not out.is_terminal else None

        def report(task: str, stage: str, done: int, total: int) -> None:
            bar = bars[task]
            progress.start_task(bar)
            speed = progress.tasks[bar].speed
            rate = f"{speed:.1f} steps/s" if speed else ""
            if total:
                progress.update(bar, description=f"{task}: {stage}", completed=done, total=total, rate=rate)
            else:
                progress.update(bar, description=f"{task}: {stage}")
            if plain:
                plain.report(task, stage, done, total)

        for candidate in build_in_parallel(jobs, home, report):
            progress.update(bars[candidate.task], description=f"{candidate.task}: registering")
            version = register_candidate(candidate, home)
            progress.update(bars[candidate.task], description=f"{candidate.task}: version {version}")
            figures = ", ".join(f"{name} {value:g}" for name, value in candidate.metrics.items())
            out.print(f"{candidate.task} version {version}: {figures}", highlight=False)
            for note in candidate.notes:
                out.print(f"  note: {note}", highlight=False, markup=False, soft_wrap=True)
            champion = read_release(home, candidate.task).champion
            if champion != version:
                out.print(f"  version {champion} keeps serving; to serve this one: "
                          f"flywheel promote {candidate.task} {version}")  # fmt: skip


def retrain_now(config: Config, task: str, store: Store, out: Console) -> Result:
    """Retrain `task` once in this process, with a progress bar."""
    from models.retraining.run import retrain
    from serve.controller.retraining import retraining_plan

    columns = (
        TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=out, refresh_per_second=2) as progress:
        bar = progress.add_task(f"{task}: waiting", total=None)
        plain = _PlainProgress(out) if not out.is_terminal else None

        def report(stage: str, done: int, total: int) -> None:
            progress.update(bar, description=f"{task}: {stage}", completed=done, total=total or None)
            if plain:
                plain.report(task, stage, done, total)

        plan = replace(retraining_plan(config, task), workers=1)  # train in this process; there may be no cluster
        return retrain(plan, config.home, store, user_name(), report)


class _PlainProgress:
    """A line per task every ten seconds, for logs and CI, where a bar cannot be redrawn."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._last: dict[str, tuple[str, float]] = {}
        self._began: dict[str, float] = {}

    def report(self, task: str, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        last_stage, last_time = self._last.get(task, ("", 0.0))
        if stage == last_stage and now - last_time < 10:
            return
        self._last[task] = (stage, now)
        if stage != last_stage:
            self._began[task] = now
        if total and done:
            left = (now - self._began[task]) / done * (total - done)
            self._out.print(f"{task}: {stage} {done}/{total}, about {left:.0f} s left", highlight=False)
        else:
            self._out.print(f"{task}: {stage}", highlight=False)
