"""Labelled texts from the user's file or from the seed corpora; errors name the line.

A file is CSV with a header or JSONL; `text` and `label` are required, `split` (`train` or `holdout`) is optional and
computed when absent, other columns are ignored. A file is read whole and checked before anything is trained on it:
models/data/checks.py.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import orjson

from export.bundle import Lineage
from models.data.checks import Faults, Labelled, check_corpus
from models.data.naming import OURS, Naming, name_it
from models.data.records import DatasetError as DatasetError
from models.data.records import MissingColumnError, column_fault, corpus_name, stream_rows
from models.data.records import read_rows as read_rows
from models.data.report import CorpusReport
from models.data.split import hold_out, text_key
from models.home import corpus_file
from models.tasks.base import Task, get_task, not_blank
from models.text import label_fault, label_name

SEED = Path(__file__).parent / "seed"
_COLUMNS = ("text", "label", "split")
_SPLITS = ("train", "holdout")
_VALIDATION = "validation"  # training rows, on which a training that holds some back holds back these


class _Fingerprinted(Protocol):
    @property
    def fingerprint(self) -> str: ...


_Read = TypeVar("_Read", bound=_Fingerprinted)


class Example(NamedTuple):
    text: str
    label: str


class Dataset(NamedTuple):
    """A corpus with its fixed split; `fingerprint` is the sha256 of content and split, whatever the file's format."""

    name: str
    train: list[Example]
    holdout: list[Example]
    fingerprint: str
    validation: frozenset[int] = frozenset()
    """models.data.split.text_key of the training texts that the file names as validation texts"""

    @property
    def labels(self) -> list[str]:
        return sorted({example.label for example in self.train})

    def lineage(self) -> Lineage:
        """The lineage that the bundle and the MLflow run record."""
        return Lineage(
            name=self.name,
            train_rows=len(self.train),
            holdout_rows=len(self.holdout),
            fingerprint=self.fingerprint,
        )


def load_dataset(task: str, file: Path | None = None) -> Dataset:
    """Load `file`, or the task's seed corpus. Raises DatasetError on data that would train a wrong model."""
    return load_checked(task, file)[0]


def load_checked(task: str, file: Path | None = None, naming: Naming = OURS) -> tuple[Dataset, CorpusReport]:
    """As `load_dataset`, with the report of what was found in the file, whose columns `naming` names.

    Labels are written as models.text.label_name has it. Raises DatasetError, with all findings, when one is an error.
    """
    path = file or seed_file(get_task(task))
    rows, faults = _read_labelled(path, naming)
    split = rows.splits
    undecided = np.flatnonzero(split == 2)
    rows.held_out = split == 1
    rows.held_out[undecided] = hold_out(rows.keys[undecided], rows.labels[undecided], rows.labels[split == 0])
    report = check_corpus(path, rows, faults)
    if errors := report.of("error"):
        others = [f"{finding.severity}: {finding.text}" for finding in report.findings if finding.severity != "error"]
        raise DatasetError("\n".join([*(finding.text for finding in errors), *others]))
    train, holdout = rows.examples(False), rows.examples(True)
    return Dataset(corpus_name(path), train, holdout, fingerprint(_rows(train, holdout)), rows.validation), report


def _read_labelled(path: Path, naming: Naming) -> tuple[Labelled, Faults]:
    """The rows that can be used, and the faults of the others."""
    if unknown := naming.columns.keys() - _COLUMNS:
        raise DatasetError(
            f"--column {min(unknown)}=...: there is no column {min(unknown)!r}, only {', '.join(_COLUMNS)}. Write one "
            "of them before the sign, and the file's name behind it: --column label=queue"
        )
    faults: Faults = defaultdict(list)
    names: dict[str, str] = {}
    numbers: dict[str, int] = {}
    examples: list[Example] = []
    validation: set[int] = set()
    keys, labels, lines, splits = array("Q"), array("i"), array("I"), bytearray()
    for line, row in _rows_of(path, naming):
        if fault := _row_fault(row):
            faults[fault].append(line)
            continue
        text, written = row["text"], row["label"]
        if (label := names.get(written)) is None:
            label = names[written] = label_name(written)
        split = row.get("split") or ""
        if split == _VALIDATION:
            split = "train"
            validation.add(text_key(text))
        # One string object a label, which a million rows share.
        number = numbers.setdefault(label, len(numbers))
        examples.append(Example(text, label))
        keys.append(text_key(text))
        labels.append(number)
        lines.append(line)
        splits.append(_SPLITS.index(split) if split else 2)
    found = Labelled(
        examples,
        list(numbers),
        {written: label for written, label in names.items() if written != label},
        np.frombuffer(keys, np.uint64) if keys else np.zeros(0, np.uint64),
        np.array(labels, np.int32),
        np.array(lines, np.uint32),
        np.frombuffer(bytes(splits), np.uint8),
        validation=frozenset(validation),
    )
    return found, faults


def _rows_of(path: Path, naming: Naming) -> Iterator[tuple[int, dict[str, Any]]]:
    required = naming.in_file(("text", "label", *(("split",) if "split" in naming.columns else ())))
    try:
        for line, row in stream_rows(path, required=required):
            yield line, naming.row(row) if naming else row
    except MissingColumnError as error:
        if error.column in naming.in_file(naming.columns):
            raise
        raise DatasetError(f"{error}. {name_it(error.column)}") from None


def _row_fault(row: dict[str, Any]) -> str | None:
    """Why the row cannot be used; None when it can."""
    for column in ("text", "label"):
        if fault := column_fault(row, column):
            return f"{fault}." if column in row else f"{fault}. {name_it(column)}"
    try:
        not_blank(row["text"])
    except ValueError as error:
        return f"{error}. Remove the line or fill it in."
    label = label_name(row["label"])
    if not label:
        return "the label is empty. Remove the line or fill it in."
    if fault := label_fault(label):
        return f"the label {label[:40]!r} {fault}: feedback could not name it. Rename it."
    split = row.get("split") or ""
    known = split in (*_SPLITS, _VALIDATION, "")
    return None if known else f"split is {repr(split)[:40]}; it must be 'train', 'validation' or 'holdout'."


def fingerprint(rows: Iterable[tuple[str, ...]]) -> str:
    """The sha256 of rows of strings, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(orjson.dumps([*row]))
    return digest.hexdigest()


def _rows(train: Iterable[Example], holdout: Iterable[Example]) -> Iterator[tuple[str, str, str]]:
    for split, examples in (("train", train), ("holdout", holdout)):
        yield from ((text, label, split) for text, label in examples)


def save_corpus(dataset: Dataset, file: Path) -> None:
    """Write the corpus with its split as JSONL; load_corpus reads it to the same rows and the same fingerprint."""
    with file.open("wb") as out:
        for row in _rows(dataset.train, dataset.holdout):
            named = dict(zip(("text", "label", "split"), row, strict=True))
            out.write(orjson.dumps(named, option=orjson.OPT_APPEND_NEWLINE))


def load_corpus(home: Path, task: str, lineage: Lineage) -> Dataset:
    """The corpus with the lineage of a bundle's `manifest.data`: the same training rows and holdout.

    Raises DatasetError when it was not kept, or the file has changed.
    """
    seed = partial(load_dataset, task) if (SEED / f"{task}.csv").is_file() else None
    corpus = load_kept(home, task, lineage, _read_kept, seed)
    return corpus._replace(name=lineage.name)


def _read_kept(file: Path) -> Dataset:
    """A corpus that `save_corpus` wrote, as it is: it was checked then, by the rules of that time."""
    parts: dict[str, list[Example]] = {split: [] for split in _SPLITS}
    labels: dict[str, str] = {}
    for line, row in stream_rows(file, required=("text", "label", "split")):
        try:
            parts[row["split"]].append(Example(row["text"], labels.setdefault(row["label"], row["label"])))
        except (KeyError, TypeError) as error:
            raise DatasetError(f"{file}, line {line}: is not a row of a kept corpus. Copy the file again.") from error
    train, holdout = parts["train"], parts["holdout"]
    return Dataset(file.stem, train, holdout, fingerprint(_rows(train, holdout)))


def load_kept(
    home: Path,
    task: str,
    lineage: Lineage,
    load: Callable[[Path], _Read],
    seed: Callable[[], _Read] | None,
    ending: str = ".jsonl",
) -> _Read:
    """The kept data with the fingerprint of `lineage`, in a file with this ending, or `seed` if that has it.

    Raises DatasetError when neither has it, or the kept file has changed.
    """
    file = corpus_file(home, task, lineage.fingerprint, ending)
    if file.is_file():
        found = load(file)
        if found.fingerprint != lineage.fingerprint:
            raise DatasetError(f"{file} is damaged: its fingerprint is {found.fingerprint}. Copy it again.")
        return found
    # Homes of versions of Flywheel that did not keep corpora: those versions were trained on the seed.
    if seed is not None and (shipped := seed()).fingerprint == lineage.fingerprint:
        return shipped
    raise DatasetError(
        f"The data {lineage.name!r} that {task} was trained on is not in {file.parent}. Copy {file.name} from "
        f"where it was trained, or train a new version on it: flywheel train {task} --data FILE"
    )


def seed_file(task: type[Task]) -> Path:
    """The seed corpus of a task. Raises DatasetError when there is none."""
    path = SEED / f"{task.name}.csv"
    if not path.is_file():
        raise DatasetError(f"There is no seed corpus for {task.name}; give one with --data FILE.")
    return path
