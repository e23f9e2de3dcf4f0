"""The files of `flywheel score`: rows to score, and the output, which is appended to and gone on with after a kill."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from models.data.columns import read_chunks
from models.data.naming import OURS, Naming
from models.data.records import DatasetError
from models.tasks.base import ClassifierTask
from serve.api.validation import validate
from serve.errors import InvalidRequest

_MAX_FIELD = 16 * 2**20
_OPTIONAL = ("topic", "published", "document_id")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_FIRST_DATE, _LAST_DATE = 19000101, 21991231  # are dates without their hyphens, not seconds of September 1970
_BEGINNING = b'{"line":'  # of a JSONL output


class Row(NamedTuple):
    """A row of the file: its item of a request as JSON, or why it cannot be one."""

    number: int
    text: str
    document_id: str
    item: bytes
    fault: str = ""


def count_rows(file: Path, naming: Naming = OURS) -> int:
    """Raises DatasetError, with the line, for a file that cannot be read to its end."""
    return sum(map(len, read_chunks(file, naming.in_file(("text",)))))


def read_rows(file: Path, task: type[ClassifierTask], field: str, naming: Naming = OURS) -> Iterator[Row]:
    """The rows in order; `field` is the list of the request that gets them, `texts` or `documents`."""
    for chunk in (chunk.renamed(naming) for chunk in read_chunks(file, naming.in_file(("text",)))):
        columns = {name.strip().casefold(): values for name, values in chunk.columns.items()} | chunk.columns
        names = [name for name in ("text", *(_OPTIONAL if field == "documents" else ())) if name in columns]
        for number, *values in zip(chunk.lines.tolist(), *(columns[name] for name in names), strict=True):
            yield _row(file, number, dict(zip(names, values, strict=True)), task, field)


def _row(file: Path, number: int, cells: dict[str, Any], task: type[ClassifierTask], field: str) -> Row:
    item = {name: value for name, cell in cells.items() if (value := _value(name, cell)) is not None}
    text = str(item.setdefault("text", ""))
    if field == "documents":
        # So that a row that is sent again, after a kill or in a second run, is not counted again.
        item.setdefault("document_id", _own_id(file, number, item))
    try:
        sent = item if field == "documents" else item["text"]
        validate(task.Request, {field: [sent]})
    except InvalidRequest as error:
        reason = re.sub(rf"^({field}(\.0|\[0\])?[.:] ?)+", "" if field == "documents" else "text: ", str(error))
        return Row(number, text, "", b"", reason)
    return Row(number, text, str(item.get("document_id", "")), orjson.dumps(sent))


def _value(name: str, cell: Any) -> Any:
    """The cell as JSON has it; None if it is empty. Spaces around a text are a part of it, those around others not."""
    if isinstance(cell, np.generic):
        cell = cell.item()
    if isinstance(cell, str) and name != "text":
        cell = cell.strip()
    if cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if name == "published":
        return _time(cell)
    if name == "document_id" and isinstance(cell, int | float) and not isinstance(cell, bool):
        # Parquet's whole numbers are floats where some are missing, and rounded ones are the ids of others.
        is_exact = isinstance(cell, int) or (cell.is_integer() and abs(cell) < 2**53)
        return str(int(cell)) if is_exact else cell
    return cell


def _time(cell: Any) -> Any:
    """A number of seconds since 1970, also one in a text, as RFC 3339; anything else as it is."""
    if isinstance(cell, bool) or not (isinstance(cell, int | float) or _NUMBER.fullmatch(str(cell))):
        return cell
    seconds = float(cell)
    if _FIRST_DATE <= seconds <= _LAST_DATE:
        return str(cell)
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return str(cell)


def _own_id(file: Path, number: int, item: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(orjson.dumps([item.get(name) for name in ("text", *_OPTIONAL)], default=str))
    return f"{file.name[-200:]}/{number}/{digest.hexdigest()[:16]}"


class Output(AbstractContextManager["Output"]):
    """A CSV or JSONL file with a row for each row of the input, in order, which grows by whole batches.

    After a kill its last row may be cut; `Output` removes it and knows how many rows are whole.
    """

    def __init__(self, path: Path, columns: Sequence[str], *, resume: bool):
        self._is_csv = path.suffix.lower() == ".csv"
        if not self._is_csv and path.suffix.lower() not in (".jsonl", ".ndjson"):
            raise DatasetError(f"{path}: give a .csv or .jsonl file for the predictions.")
        self.path, self._columns = path, columns
        exists = path.exists() and path.stat().st_size > 0
        if exists and not resume:
            raise DatasetError(f"{path} exists already. Add --resume to go on with it, or give another --out.")
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise DatasetError(f"{path}: cannot be written: {error.strerror or error}.") from error
        self._header = self._csv([dict(zip(columns, columns, strict=True))]) if self._is_csv else b""
        self.rows = 0
        self.last: dict[str, Any] = {}
        """the last whole row"""
        self._end = self._read() if exists else 0
        self._begun = False

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if not self._begun:
            self._begin()
        self._write(self._csv(rows) if self._is_csv else b"".join(orjson.dumps(row) + b"\n" for row in rows))
        self.rows += len(rows)

    def _begin(self) -> None:
        """Remove a cut row. Until there is something to write, the file stays as it was."""
        os.ftruncate(self._file, self._end)
        os.lseek(self._file, self._end, os.SEEK_SET)
        if not self._end:
            self._write(self._header)
        self._begun = True

    def _write(self, content: bytes) -> None:
        left = memoryview(content)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError as error:
            raise DatasetError(f"{self.path}: cannot be written: {error.strerror or error}.") from error

    def _csv(self, rows: Iterable[Mapping[str, Any]]) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")  # so that a field with either is quoted
        writer.writerows([_cell(row.get(column, "")) for column in self._columns] for row in rows)
        return text.getvalue().encode()

    def _read(self) -> int:
        """The end of the last whole row. Raises DatasetError for another file, which stays as it is."""
        end = start = last = position = 0
        whole = True
        with open(self._file, "rb", closefd=False) as file:
            for line in file:
                position += len(line)
                # A quote inside a field is written twice, so a row is whole where their number is even.
                if self._is_csv and line.count(b'"') % 2:
                    whole = not whole
                if whole and line.endswith(b"\n"):
                    last, start, end = start, position, position
                    self.rows += 1
            file.seek(0)
            head = file.readline()
            file.seek(last)
            content = file.read(end - last)
        beginning = self._header if self._is_csv else _BEGINNING
        if not beginning.startswith(head[: len(beginning)]):  # of a kill, the head may be a part
            raise DatasetError(
                f"{self.path}: is not an output of flywheel score, or has other columns than are written now. "
                "Give another --out."
            )
        if self._is_csv:
            self.rows = max(0, self.rows - 1)
        if self.rows:
            self.last = self._parsed(content)
        return end

    def _parsed(self, content: bytes) -> dict[str, Any]:
        try:
            if not self._is_csv:
                return dict(orjson.loads(content))
            csv.field_size_limit(_MAX_FIELD)
            [cells] = csv.reader(io.StringIO(content.decode(), newline=""))
            return dict(zip(self._columns, cells, strict=True))
        except (ValueError, TypeError, csv.Error) as error:
            raise DatasetError(f"{self.path}: is not an output of flywheel score. Give another --out.") from error


def _cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        return orjson.dumps(value).decode()
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else value
