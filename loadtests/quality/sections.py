"""What docs/quality.md is made of: each section trains or takes a model, asks it over HTTP, and yields figures."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from loadtests.accuracy import DATA, SETS
from loadtests.peers import PeerError
from loadtests.quality.figures import OUT_OF_SCOPE, Answers, Bools, Figure, classification, out_of_scope
from loadtests.quality.served import ask, served
from loadtests.quality.trained import Row, Training, read_rows
from loadtests.servers import check_encoders, home, release_file
from models.data.dataset import load_dataset

LEFT_OUT = 10
"""intents of Banking77 that the model of the section on out-of-scope texts is not taught"""


@dataclass(frozen=True)
class Section:
    """Figures of one model, or of one for each seed, and the answers that they were computed from."""

    title: str
    about: str
    commands: Sequence[str] = ()
    seeds: Sequence[int] = ()
    """of the trainings; empty for a model that was trained before"""
    figures: Sequence[Figure] = ()
    bounds: dict[str, float] = field(default_factory=dict)
    runs: Sequence[Answers] = ()
    outside: Sequence[Bools] = ()
    """which texts are out of scope, a mask a run; empty where none is"""
    served: Sequence[str] = ()
    """what the versions are, a sentence each"""
    absent: str | None = None
    """why nothing was measured"""

    @property
    def answerable(self) -> list[Answers]:
        """By run, the answers to texts whose label the model knows: those in scope, or with a label out_of_scope."""
        if not self.outside:
            return list(self.runs)
        return [
            run.take(~mask | (run.truth == OUT_OF_SCOPE)) for run, mask in zip(self.runs, self.outside, strict=True)
        ]


@dataclass(frozen=True)
class Source:
    """A part of `--sets`."""

    trainings: Callable[[Sequence[int]], list[Training]]
    """for these seeds; empty without its data"""
    measure: Callable[[Sequence[int], Console], list[Section]]
    """once these are done"""


def public_trainings(name: str, minutes: float) -> Callable[[Sequence[int]], list[Training]]:
    """Of all of the public set's train.csv; test.csv is the holdout."""

    def trainings(seeds: Sequence[int]) -> list[Training]:
        if not (DATA / name).is_dir():
            return []
        train, test = read_rows(DATA / name / "train.csv"), read_rows(DATA / name / "test.csv")
        return [Training(_folder(name, seed), SETS[name].task, train, test, seed, minutes) for seed in seeds]

    return trainings


def public_set(name: str, title: str, minutes: float) -> Source:
    """The official test part of a public set, asked of a model of its training part."""
    trainings = public_trainings(name, minutes)

    def measure(seeds: Sequence[int], console: Console) -> list[Section]:
        done = trainings(seeds)
        if not done:
            return [_missing(title, name)]
        runs, versions = _asked(done, done[0].holdout, console)
        about = (
            f"Trained on the {len(done[0].train):,} texts of its training part, asked the {len(done[0].holdout):,} of "
            f"its test part, which no training saw."
        )
        found = classification(runs)
        commands = [done[0].command, _make(name, seeds)]
        return [Section(title, about, commands, seeds, found, SETS[name].bounds, runs, served=versions)]

    return Source(trainings, measure)


def left_out(labels: Sequence[str], seed: int) -> list[str]:
    """The intents that are not taught, drawn with the seed."""
    return sorted(random.Random(seed).sample(sorted(set(labels)), LEFT_OUT))


def scope_trainings(seeds: Sequence[int]) -> list[Training]:
    """Of Banking77 without the texts of the left-out intents."""
    if not (DATA / "banking77").is_dir():
        return []
    train, test = read_rows(DATA / "banking77" / "train.csv"), read_rows(DATA / "banking77" / "test.csv")
    return [scope_training(train, test, seed) for seed in seeds]


def scope_training(train: Sequence[Row], test: Sequence[Row], seed: int) -> Training:
    unknown = set(left_out([label for _, label in train], seed))
    known = [[row for row in rows if row[1] not in unknown] for rows in (train, test)]
    return Training(_folder("out_of_scope", seed), "intent", *known, seed, minutes=10)


def measure_scope(seeds: Sequence[int], console: Console) -> list[Section]:
    """All test texts of Banking77, those of the left-out intents too, asked of the model that was not taught them."""
    title = "Out of scope: Banking77 with ten intents left out"
    done = scope_trainings(seeds)
    if not done:
        return [_missing(title, "banking77")]
    test = read_rows(DATA / "banking77" / "test.csv")
    runs, versions = _asked(done, test, console)
    unknown = [left_out([label for _, label in test], seed) for seed in seeds]
    outside = [np.isin(run.truth, names) for run, names in zip(runs, unknown, strict=True)]
    inside = [run.take(~mask) for run, mask in zip(runs, outside, strict=True)]
    listed = "; ".join(f"seed {seed}: {', '.join(names)}" for seed, names in zip(seeds, unknown, strict=True))
    about = (
        f"In the manner of CLINC150, queries of unknown intents are asked among those of known ones; here they are of "
        f"the same field. Ten of the 77 intents, drawn with the seed, are left out of training, which sees no text out "
        f"of scope. Then all {len(test):,} test texts are asked. A text is caught if `handoff` gives it to a "
        f"person, as it does below a score of 0.5 (`handoff_below`); this model has no label `out_of_scope`. Accuracy, "
        f"macro-F1, calibration and early answers are of the texts in scope. Left out: {listed}."
    )
    figures = [*out_of_scope(runs, outside), *classification(inside)]
    commands = [done[0].command, _make("out_of_scope", seeds)]
    return [Section(title, about, commands, seeds, figures, {}, runs, outside, versions)]


def measure_seeds(seeds: Sequence[int], console: Console) -> list[Section]:
    """The holdouts of the seed corpora, asked of the default models of the home; `seeds` are of no use here."""
    absent = {task: reason for task in ("intent", "sentiment") if (reason := why_not(home(), task))}
    tasks = [task for task in ("intent", "sentiment") if task not in absent]
    sections = [Section(_seed_title(task), "", absent=reason) for task, reason in absent.items()]
    if not tasks:
        return sections
    with served(home(), tasks, console) as url:
        return [*(_seed_section(url, task, console) for task in tasks), *sections]


def why_not(models: Path, task: str) -> str | None:
    """Why the home's model of `task` cannot be asked the holdout of the seed corpus; None if it can."""
    if not release_file(models, task).is_file():
        return f"there is no {task} model yet. Run: make serve (it trains one)"
    try:
        check_encoders(models)
    except PeerError as error:
        return str(error)
    if manifest_of(models, task)["data"]["fingerprint"] != load_dataset(task).fingerprint:
        return (
            f"the {task} model was not trained on this seed corpus, and may have learned texts of its holdout. "
            f"Run: flywheel train {task}, and promote the new version"
        )
    return None


def _seed_section(url: str, task: str, console: Console) -> Section:
    holdout = load_dataset(task).holdout
    run = answers_to(url, task, holdout, console)
    figures, outside = classification([run]), list[Bools]()
    about = f"The default model, asked the {len(holdout):,} texts of the seed corpus's holdout, made for this project."
    if OUT_OF_SCOPE in run.truth:
        outside = [run.truth == OUT_OF_SCOPE]
        figures = [*figures, *out_of_scope([run], outside)]
        about += f" {int(outside[0].sum())} of them are out of scope; such texts are also in its training part."
    version = describe(manifest_of(home(), task))
    return Section(_seed_title(task), about, [_make("seeds", ())], (), figures, {}, [run], outside, [version])


def _asked(done: Sequence[Training], rows: Sequence[Row], console: Console) -> tuple[list[Answers], list[str]]:
    """The answers of the version of each training to all texts of the rows, and what these versions are."""
    runs = []
    for training in done:
        with served(training.folder, [training.task], console) as url:
            runs.append(answers_to(url, training.task, rows, console))
    return runs, [describe(manifest_of(training.folder, training.task)) for training in done]


def answers_to(url: str, task: str, rows: Sequence[Row], console: Console) -> Answers:
    """What the server answers to the texts of these rows."""
    return Answers.of([label for _, label in rows], ask(url, task, [text for text, _ in rows], console, details=True))


def manifest_of(models: Path, task: str) -> dict[str, Any]:
    """The manifest of the champion."""
    release = json.loads(release_file(models, task).read_text(encoding="utf-8"))
    file = models / str(release["versions"][release["champion"]]) / "manifest.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def describe(manifest: dict[str, Any]) -> str:
    """What was served, in a sentence."""
    early = (manifest.get("linear") or {}).get("early")
    readers = "two readers" if manifest.get("linear") else "the encoder alone"
    if manifest.get("linear"):
        readers += ", early answers" if early else ", no early answers"
    return (
        f"{manifest['task']}, {manifest['precision']}, {len(manifest['labels'])} labels, {readers}, "
        f"base {manifest['base_model']}, exported {manifest['created'][:10]}"
    )


def _missing(title: str, name: str) -> Section:
    return Section(title, "", absent=f"../shared/data/{name} is missing")


def _make(name: str, seeds: Sequence[int]) -> str:
    chosen = f" --seeds {','.join(map(str, seeds))}" if seeds else ""
    return f'make quality ARGS="--sets {name}{chosen}"'


def _seed_title(task: str) -> str:
    return f"The seed corpus: {task}"


def _folder(name: str, seed: int) -> Path:
    return home() / "quality" / f"{name}-{seed}"


SOURCES = {
    "banking77": public_set("banking77", "Banking77", 11),
    "financial_phrasebank": public_set("financial_phrasebank", "Financial PhraseBank", 3),
    "out_of_scope": Source(scope_trainings, measure_scope),
    "seeds": Source(lambda _: [], measure_seeds),
}
