"""Homes with one model that is trained by `flywheel train` on a public set, kept for the next run."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from loadtests.peers import PeerError
from loadtests.servers import COMMAND
from loadtests.texts import ROOT

_CODE = ("export", "models", "flywheel.yaml", "constraints.txt")
"""what decides which model a training gives, besides its corpus and seed"""
_KEPT = {"bundles", "releases", "trained.json"}
Row = tuple[str, str]
"""text and label"""


@dataclass(frozen=True)
class Training:
    """`flywheel train TASK --data CORPUS --seed SEED` in the home `folder`."""

    folder: Path
    task: str
    train: Sequence[Row]
    holdout: Sequence[Row]
    seed: int
    minutes: float
    """on two cores, roughly"""

    @property
    def command(self) -> str:
        return f"flywheel train {self.task} --data corpus.csv --seed {self.seed}"

    @property
    def stamp(self) -> str:
        """Of the corpus, the command and the code: a home with this one need not be trained again."""
        digest = hashlib.sha256(f"{self.command}\n{code_digest(ROOT)}\n".encode())
        digest.update(json.dumps([list(self.train), list(self.holdout)]).encode())
        return digest.hexdigest()

    @property
    def is_done(self) -> bool:
        file = self.folder / "trained.json"
        return file.is_file() and json.loads(file.read_text(encoding="utf-8"))["stamp"] == self.stamp

    def run(self) -> float:
        """Train, and keep the bundle and the release alone; the minutes it took. Raises PeerError when it fails."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        write_rows(self.folder / "corpus.csv", self.train, self.holdout)
        command = [str(COMMAND), *self.command.split()[1:]]
        command[command.index("corpus.csv")] = str(self.folder / "corpus.csv")
        started = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, env=_environment(self.folder))
        if done.returncode != 0:
            raise PeerError(f"{self.command} failed in {self.folder}; the reason is above.")
        minutes = (time.monotonic() - started) / 60
        for path in self.folder.iterdir():
            if path.name not in _KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        stamp = {"stamp": self.stamp, "command": self.command, "minutes": round(minutes, 1)}
        (self.folder / "trained.json").write_text(json.dumps(stamp), encoding="utf-8")
        return minutes


def train_all(trainings: Sequence[Training], console: Console) -> float:
    """Run those that are not done, and say before each how long all take; the minutes it took."""
    waiting = [training for training in trainings if not training.is_done]
    spent, expected = 0.0, 0.0
    for number, training in enumerate(waiting, 1):
        left = time_left([each.minutes for each in waiting[number - 1 :]], spent, expected)
        console.print(
            f"training {number} of {len(waiting)}: {training.folder.name}; about {left:.0f} minutes left for all. "
            f"It is kept in {training.folder}.",
            highlight=False,
            markup=False,
        )
        spent += training.run()
        expected += training.minutes
    return spent


def time_left(waiting: Sequence[float], spent: float, expected: float) -> float:
    """The minutes that the waiting trainings take, by the pace of those that took `spent` instead of `expected`."""
    return sum(waiting) * (spent / expected if expected else 1.0)


def write_rows(file: Path, train: Iterable[Row], holdout: Iterable[Row]) -> None:
    """Write a training file whose column `split` names the holdout, which is not trained on."""
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["text", "label", "split"])
        for split, rows in (("train", train), ("holdout", holdout)):
            writer.writerows([text, label, split] for text, label in rows)


def read_rows(file: Path) -> list[Row]:
    """The texts and labels of a CSV file."""
    with file.open(encoding="utf-8", newline="") as opened:
        return [(row["text"], row["label"]) for row in csv.DictReader(opened, strict=True)]


def code_digest(root: Path) -> str:
    """The sha256 of the source files below `root` that decide which model is trained."""
    digest = hashlib.sha256()
    for name in _CODE:
        found = sorted((root / name).rglob("*.py")) if (root / name).is_dir() else [root / name]
        for file in found:
            digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def _environment(folder: Path) -> dict[str, str]:
    """With the home `folder`; its runs are not logged in the user's MLflow."""
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return {**kept, "FLYWHEEL_HOME": str(folder)}
