"""The trained home that the benchmark serves: the user's own, or one whose intent model is trained on Banking77."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from rich.console import Console

from loadtests.peers import PeerError
from loadtests.servers import COMMAND, home, release_file
from loadtests.texts import BANKING77, ROOT, Corpus, write_corpus

_OTHERS = ("sentiment", "recommendation")


def home_for(corpus: Corpus, console: Console) -> Path:
    """The home whose intent champion was trained on the corpus; for Banking77 it is trained if there is none.

    The holdout of the seed corpus is asked of the user's home. Raises PeerError when a model is missing there, or when
    the training fails.
    """
    for task in ("intent", *_OTHERS):
        if not release_file(home(), task).is_file():
            raise PeerError(
                f"There is no {task} model in {home()} yet. Run: make serve (it trains one), then make bench."
            )
    if corpus.name == "seed":
        return home()
    models = home() / "bench"
    for task in _OTHERS:  # each time, because the user's home may have a new version
        _copy(task, home(), models)
    if not release_file(models, "intent").is_file():
        _train(models, console)
    return models


def _copy(task: str, source: Path, target: Path) -> None:
    shutil.rmtree(target / "bundles" / task, ignore_errors=True)
    shutil.copytree(source / "bundles" / task, target / "bundles" / task)
    release_file(target, task).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(release_file(source, task), release_file(target, task))


def _train(models: Path, console: Console) -> None:
    """Train on all of train.csv. test.csv, which is asked, is the holdout: evaluated on, and not trained on."""
    console.print(
        f"Training an intent model on Banking77 for the benchmark, once: about 10 minutes on two cores. It is kept in "
        f"{models}; remove that folder to train it again.",
        highlight=False,
        markup=False,
    )
    models.mkdir(parents=True, exist_ok=True)
    write_corpus(BANKING77, models / "banking77.csv")
    command = [str(COMMAND), "train", "intent", "--data", str(models / "banking77.csv")]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "FLYWHEEL_HOME": str(models)})
    if done.returncode != 0:
        raise PeerError("The intent model for the benchmark could not be trained; the reason is above.")
