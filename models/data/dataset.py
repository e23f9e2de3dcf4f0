"""Labelled texts from the user's file or from the seed corpora; errors name the line.

A file is CSV with a header or JSONL; `text` and `label` are required, `split` (`train` or `holdout`) is optional and
computed when absent, other columns are ignored.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import orjson

from export.bundle import Lineage
from models.home import corpus_file
from models.tasks.base import Task, get_task

SEED = Path(__file__).parent / "seed"
HOLDOUT_SHARE = 0.1
_SPLITS = ("train", "holdout")


class DatasetError(Exception):
    """Raised when a training file cannot be used; the message names the file, the line and the remedy."""


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
    path = file or seed_file(get_task(task))
    parts: dict[str, list[Example]] = {"train": [], "holdout": [], "": []}
    for line, row in read_rows(path, required=("text", "label")):
        text, label = row["text"], row["label"]
        if not text.strip():
            raise DatasetError(f"{path}, line {line}: the text is empty. Remove the line or fill it in.")
        if not label.strip():
            raise DatasetError(f"{path}, line {line}: the label is empty. Remove the line or fill it in.")
        split = row.get("split") or ""
        if split not in (*_SPLITS, ""):
            raise DatasetError(f"{path}, line {line}: split is {split!r}; it must be 'train' or 'holdout'.")
        parts[split].append(Example(text, label))
    for example in parts[""]:
        parts["holdout" if _is_holdout(example.text) else "train"].append(example)
    train, holdout = parts["train"], parts["holdout"]
    dataset = Dataset(path.stem, train, holdout, fingerprint(_rows(train, holdout)))
    _check(path, dataset)
    return dataset


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
    """Write the corpus with its split as JSONL; load_dataset reads it to the same rows and the same fingerprint."""
    with file.open("wb") as out:
        for row in _rows(dataset.train, dataset.holdout):
            named = dict(zip(("text", "label", "split"), row, strict=True))
            out.write(orjson.dumps(named, option=orjson.OPT_APPEND_NEWLINE))


def load_corpus(home: Path, task: str, lineage: Lineage) -> Dataset:
    """The corpus with the lineage of a bundle's `manifest.data`: the same training rows and holdout.

    Raises DatasetError when it was not kept, or the file has changed.
    """
    seed = partial(load_dataset, task) if (SEED / f"{task}.csv").is_file() else None
    corpus = load_kept(home, task, lineage, partial(load_dataset, task), seed)
    return corpus._replace(name=lineage.name)


def load_kept(
    home: Path,
    task: str,
    lineage: Lineage,
    load: Callable[[Path], _Read],
    seed: Callable[[], _Read] | None,
) -> _Read:
    """The kept data with the fingerprint of `lineage`, or `seed` if that has it.

    Raises DatasetError when neither has it, or the kept file has changed.
    """
    file = corpus_file(home, task, lineage.fingerprint)
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


def read_rows(
    path: Path, *, required: tuple[str, ...], numbers: tuple[str, ...] = ()
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) for each row of a CSV or JSONL file. Raises DatasetError with the line number.

    `required` columns must be strings; those among `numbers` may also be JSON numbers.
    """
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise DatasetError(f"{path}: give a .csv or .jsonl file, not {path.suffix or 'a file without an ending'}.")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}.") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DatasetError(
            f"{path}, line {line}: not UTF-8 (byte 0x{raw[error.start]:02x}). Save the file as UTF-8, "
            f"for instance: iconv -f windows-1252 -t utf-8 {path.name}"
        ) from error
    rows = _csv_rows(path, text, required) if path.suffix.lower() == ".csv" else _jsonl_rows(path, text)
    for line, row in rows:
        for column in required:
            value = row.get(column)
            if not isinstance(value, str) and not (column in numbers and isinstance(value, int | float)):
                raise DatasetError(f"{path}, line {line}: there is no {column!r}, or it is not a string.")
        yield line, row


def _csv_rows(path: Path, text: str, required: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise DatasetError(f"{path}, line {line}: not valid CSV: {error}.") from error
        if header is None:
            header = fields or []
            if missing := [column for column in required if column not in header]:
                found = ", ".join(header) or "nothing"
                raise DatasetError(f"{path}, line {line}: the header has no column {missing[0]!r}; it has: {found}.")
        elif fields is None:
            return
        elif len(fields) > len(header):
            raise DatasetError(f"{path}, line {line}: more fields than the header has. Quote texts with commas.")
        elif fields:
            yield line, dict(zip(header, fields, strict=False))


def _jsonl_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise DatasetError(f"{path}, line {line}: not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{path}, line {line}: a JSON object is expected, one a line.")
        yield line, row


def _is_holdout(text: str) -> bool:
    """Split by a hash of the normalized text, so that it survives reordering and exact duplicates stay on one side."""
    # Not models.text.same_text_key: another key would change the split of files that versions were trained on.
    normal = " ".join(text.lower().split())
    return int.from_bytes(hashlib.sha256(normal.encode()).digest()[:4], "big") < HOLDOUT_SHARE * 2**32


def _check(path: Path, dataset: Dataset) -> None:
    counts = Counter(example.label for example in dataset.train)
    if not dataset.train:
        raise DatasetError(f"{path}: there are no training rows.")
    if len(counts) < 2:
        raise DatasetError(f"{path}: all rows have the label {next(iter(counts))!r}; a classifier needs two or more.")
    if unknown := {example.label for example in dataset.holdout} - set(counts):
        raise DatasetError(
            f"{path}: the label {min(unknown)!r} is in the holdout but never in the training rows; "
            "add examples of it or remove it."
        )
    if not dataset.holdout:
        raise DatasetError(f"{path}: too few rows to hold any out ({len(dataset.train)}); give more examples.")
