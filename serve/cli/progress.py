"""Training and retraining with progress bars: steps, rate and time left."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from export.machine import user_name
from export.providers import CPU
from export.session import choose_provider
from models.feedback.store import Store, StoreUnavailable
from models.releases.release import ReleaseChanged, ReleaseError, awaits_encoder, read_release
from models.releases.rollout import Rollout
from models.retraining.plan import Result
from models.training.candidate import TrainedCandidate, TrainingJob
from models.training.parallel import build_in_parallel
from models.training.pipeline import register_candidate
from models.training.unfinished import advice, unfinished_trainings
from serve.cli.settings import actor
from serve.config import Config, PrecisionConfig

_STORE_TIMEOUT_S = 2.0  # for a database that does not answer; then the release changes without it


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


def without_encoder(config: Config) -> list[str]:
    """The configured tasks of which only the first, quick version exists."""
    return [task for task in config.tasks if awaits_encoder(config.home, task)]


def prepare(config: Config, out: Console) -> None:
    """Train every configured task that has no version with an encoder yet."""
    if missing := [*untrained(config), *without_encoder(config)]:
        out.print(f"No model yet for {', '.join(missing)}: fine-tuning from the seed corpora, once.")
        train_jobs(seed_jobs(missing, config), config, out)


def seed_jobs(tasks: Sequence[str], config: Config) -> list[TrainingJob]:
    """Trainings of the tasks from their seed corpora, exported for this machine."""
    precision: Literal["int8", "fp16"] = "int8" if choose_provider("auto") == CPU else "fp16"
    return [with_asked_precision(TrainingJob(task, precision=precision), config) for task in tasks]


def with_asked_precision(job: TrainingJob, config: Config) -> TrainingJob:
    """The job, with the precision that the configuration asks of its task's confident answers."""
    asked = config.tasks[job.task].confidence if job.task in config.tasks else PrecisionConfig()
    own = (("confidence_high", asked.high), ("confidence_medium", asked.medium))
    return replace(job, recipe=(*job.recipe, *own))


def train_jobs(jobs: Sequence[TrainingJob], config: Config, out: Console) -> None:
    """Build and register a version for each job, with a progress bar per job.

    A version is released at once when the task has none with an encoder. Raises TrainExtraMissing, or the first error
    of a job after all jobs have ended.
    """
    check_train_extra("torch")
    home = config.home
    failures = []
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
        plain = PlainProgress(out) if not out.is_terminal else None

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

        for task, future in build_in_parallel(jobs, home, report):
            try:
                candidate = future.result()
                progress.update(bars[task], description=f"{task}: registering")
                version = register(candidate, config, actor())
            except Exception as error:
                progress.update(bars[task], description=f"{task}: failed")
                failures.append(error)
                continue
            progress.update(bars[task], description=f"{task}: version {version}")
            print_version(candidate, version, out)
            champion = read_release(home, task).champion
            if champion != version:
                out.print(f"  version {champion} keeps serving; to serve this one: "
                          f"flywheel promote {task} {version}")  # fmt: skip
    if failures:
        raise failures[0]


def register(candidate: TrainedCandidate, config: Config, who: str) -> str:
    """Make the candidate a version, and the champion, in the name of `who`, if the task has none with an encoder.

    The new version.
    """
    task, home = candidate.task, config.home
    if not awaits_encoder(home, task):
        return register_candidate(candidate, home)
    awaited = read_release(home, task)
    store = Store(config.feedback.store_url(home), patience_s=_STORE_TIMEOUT_S)
    with suppress(StoreUnavailable):  # the move works without it; its audit entry is written later
        store.migrate()
    rollout, reason = Rollout(home, store, task, who), f"it has an encoder; version {awaited.champion} had none"

    def release(version: str) -> None:
        with suppress(ReleaseChanged):  # an operator, or another training, was faster
            rollout.promote(version, reason, awaited)

    return register_candidate(candidate, home, release=release)


def print_version(candidate: TrainedCandidate, version: str, out: Console) -> None:
    """Print a new version's metrics and notes."""
    figures = ", ".join(f"{name} {value:g}" for name, value in candidate.metrics.items())
    out.print(f"{candidate.task} version {version}: {figures}", highlight=False, soft_wrap=True)
    for note in candidate.notes:
        out.print(f"  note: {note}", highlight=False, markup=False, soft_wrap=True)


def check_train_extra(module: str) -> None:
    """Raises TrainExtraMissing when `module`, of the train extra, cannot be imported."""
    try:
        importlib.import_module(module)
    except ImportError:
        raise TrainExtraMissing("Training needs the train extra: pip install 'flywheel-serve[cpu,train]'") from None


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
        plain = PlainProgress(out) if not out.is_terminal else None

        def report(stage: str, done: int, total: int) -> None:
            progress.update(bar, description=f"{task}: {stage}", completed=done, total=total or None)
            if plain:
                plain.report(task, stage, done, total)

        plan = replace(retraining_plan(config, task), workers=1)  # train in this process; there may be no cluster
        return retrain(plan, config.home, store, user_name(), report)


class PlainProgress:
    """A line per task every `every_s` seconds, for logs and CI, where a bar cannot be redrawn."""

    def __init__(self, out: Console, every_s: float = 10) -> None:
        self._out, self._every_s = out, every_s
        self._last: dict[str, tuple[str, float]] = {}
        self._began: dict[str, float] = {}

    def report(self, task: str, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        last_stage, last_time = self._last.get(task, ("", 0.0))
        if stage == last_stage and now - last_time < self._every_s:
            return
        self._last[task] = (stage, now)
        if stage != last_stage:
            self._began[task] = now
        if total and done and now > self._began[task]:
            left = (now - self._began[task]) / done * (total - done)
            self._out.print(f"{task}: {stage} {done}/{total}, about {left:.0f} s left", highlight=False)
        else:
            self._out.print(f"{task}: {stage}", highlight=False)
