"""Rows of a CSV or JSONL file, read as a stream; errors name the line and the remedy.

The encoding is told by the file's first bytes and the delimiter by its header, since neither is ambiguous there: Excel
writes UTF-8 with a byte order mark, `;` where the comma is the decimal sign, and tabs in UTF-16 as "Unicode text".
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import orjson

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson")
_DELIMITERS = (",", ";", "\t", "|")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16's, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Longer than any text that a model reads; the default of 131,072 fails on one long text that is valid.
_MAX_FIELD = 16 * 2**20
_OTHER_FORMATS = {
    ".xlsx": "Save the sheet as 'CSV UTF-8'.",
    ".xls": "Save the sheet as 'CSV UTF-8'.",
    ".json": "Write one object a line, for instance: jq -c '.[]' data.json > data.jsonl",
    ".parquet": "Write it as JSONL, for instance with pandas: to_json('data.jsonl', orient='records', lines=True)",
    ".zip": "Unpack it, or compress the one file with gzip.",
}

_Parsed = TypeVar("_Parsed")

Row = tuple[int, dict[str, Any]]
"""(line number, row); a row of a CSV file has strings, and None for a field that its line lacks"""


class DatasetError(Exception):
    """Raised when a training file cannot be used; the message names the file, the line and the remedy."""


class MissingColumnError(DatasetError):
    """Raised for a table that lacks the required `column`."""

    def __init__(self, column: str, sentence: str):
        super().__init__(sentence)
        self.column = column


def read_rows(path: Path, *, required: tuple[str, ...]) -> Iterator[Row]:
    """(line number, row) for each row of a CSV or JSONL file, also of one compressed by gzip.

    Raises DatasetError, with the line number, at the first row that lacks a `required` column. Its value must be a
    string.
    """
    for line, row in stream_rows(path, required=required):
        for column in required:
            if fault := column_fault(row, column):
                raise DatasetError(f"{path}, line {line}: {fault}.")
        yield line, row


def column_fault(row: dict[str, Any], column: str, *, may_be_number: bool = False) -> str | None:
    """What is wrong with a row's column that must be a string; None when nothing is."""
    value = row.get(column)
    if isinstance(value, str):
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return None if may_be_number else f"{column!r} is a number, not a string. Put it in quotes"
    has = ", ".join(str(name)[:40] for name in [*row][:5]) or "nothing"
    return f"there is no {column!r}, or it is not a string; the row has: {has}"


def stream_rows(path: Path, *, required: tuple[str, ...]) -> Iterator[Row]:
    """As `read_rows`, but the columns of a row are not checked; those of the header of a CSV file are."""
    if not is_csv(path):
        yield from _stream(path, _jsonl_rows)
        return
    fields = stream_fields(path, required=required)
    _, header = next(fields)
    for line, row in fields:
        yield line, dict(zip(header, row, strict=False))


def is_csv(path: Path) -> bool:
    """Whether a file has a header and fields, by its ending; otherwise it has JSON. Raises DatasetError for others."""
    return _ending(path) in (".csv", ".tsv")


def stream_fields(path: Path, *, required: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of the header of a CSV file, and then of each row, which may have more fields, or fewer.

    What is more is empty. Raises DatasetError for a header without the `required` columns.
    """
    return _stream(path, partial(_csv_fields, required=required))


def _stream(path: Path, read: Callable[[Path, io.TextIOWrapper], Iterator[_Parsed]]) -> Iterator[_Parsed]:
    """What `read` reads. Raises DatasetError for a file that cannot be read as text."""
    try:
        with _open(path) as raw:
            # Not closed: closing it would close `raw`, which the block above does.
            text = io.TextIOWrapper(raw, _encoding(path, raw), newline="" if is_csv(path) else "\n")
            yield from read(path, text)
            text.detach()
    except UnicodeDecodeError as error:
        raise _not_decodable(path, error) from error
    except (gzip.BadGzipFile, EOFError) as error:
        raise DatasetError(f"{path}: cannot be unpacked: {error}.") from error
    except OSError as error:
        if path.is_dir():
            raise DatasetError(f"{path}: is a directory. Give one file, for instance: cat {path}/*.jsonl > all.jsonl"
                               ) from error  # fmt: skip
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}.") from error


def corpus_name(path: Path) -> str:
    """The file's name without its endings, by which a lineage names the data."""
    return path.with_suffix("").stem if path.suffix.lower() == ".gz" else path.stem


def _ending(path: Path) -> str:
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    ending = plain.suffix.lower()
    if ending in ENDINGS:
        return ending
    if path.is_dir():
        raise DatasetError(f"{path}: is a directory. Give one file, for instance: cat {path}/*.jsonl > all.jsonl")
    hint = _OTHER_FORMATS.get(ending, ".tsv, .csv.gz and .jsonl.gz are read too.")
    raise DatasetError(f"{path}: give a .csv or .jsonl file, not {plain.suffix or 'a file without an ending'}. {hint}")


def _open(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.GzipFile(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def _encoding(path: Path, raw: gzip.GzipFile | io.BufferedReader) -> str:
    head = raw.peek(4096)[:4096]
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    # The columns' names are ASCII, of which UTF-16 makes every second byte zero.
    zeros = [head[start:64:2].count(0) for start in (0, 1)]
    if max(zeros) > len(head[:64]) // 8:
        name = "utf-16le" if zeros[1] > zeros[0] else "utf-16be"
        raise DatasetError(
            f"{path}, line 1: not UTF-8: this is {name.upper()} without a byte order mark. Convert it: "
            f"iconv -f {name} -t utf-8 {path.name} > utf8{path.suffix}"
        )
    return "utf-8"


def _not_decodable(path: Path, error: UnicodeDecodeError) -> DatasetError:
    """The error with the line, which a decoder of blocks does not know."""
    if error.encoding != "utf-8":
        return DatasetError(f"{path}: begins with a mark of {error.encoding}, but is not: {error.reason}.")
    with _open(path) as raw:
        for number, line in enumerate(raw, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as fault:
                return DatasetError(
                    f"{path}, line {number}: not UTF-8 (byte 0x{line[fault.start]:02x}). Save the file as UTF-8, or "
                    f"convert it from the encoding it was saved in (windows-1252 in Western Europe and the Americas), "
                    f"for instance: iconv -f windows-1252 -t utf-8 {path.name} > utf8{path.suffix}"
                )
    return DatasetError(f"{path}: not UTF-8. Save the file as UTF-8.")


def _csv_fields(path: Path, text: io.TextIOWrapper, required: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    first = text.readline()
    skipped = 0
    if first.lower().startswith("sep=") and len(first.strip()) == 5:  # which Excel writes and reads
        first, skipped = text.readline(), 1
    csv.field_size_limit(_MAX_FIELD)
    delimiter = _delimiter(first, required)
    reader = csv.reader(_lines(first, text), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1 + skipped
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise DatasetError(
                f"{path}, line {line}: not valid CSV: {error}. Is a quotation mark open? Inside a quoted text it is "
                'written twice: "".'
            ) from error
        if header is None:
            header = _header(path, line, fields or [], required)
            yield line, header
        elif fields is None:
            return
        elif any(map(str.strip, fields[len(header) :])):  # Excel ends lines with empty fields
            name = {",": "commas", ";": "semicolons", "\t": "tabs"}.get(delimiter, repr(delimiter))
            raise DatasetError(f"{path}, line {line}: more fields than the header has. Quote texts with {name}.")
        elif fields and (fields[0].strip() or any(map(str.strip, fields))):  # and files with lines of them
            yield line, fields


def _lines(first: str, text: io.TextIOWrapper) -> Iterator[str]:
    yield first
    yield from text


def _delimiter(header: str, required: tuple[str, ...]) -> str:
    """The delimiter with which the header has the most required columns, or, if it has none of them, columns."""

    def found(delimiter: str) -> tuple[int, int]:
        try:
            names = next(csv.reader([header], delimiter=delimiter), [])
        except csv.Error:
            return 0, 0
        known = len({_folded(name) for name in names} & {_folded(name) for name in required})
        return known, 0 if known else len(names)

    return max(_DELIMITERS, key=found)


def _header(path: Path, line: int, names: list[str], required: tuple[str, ...]) -> list[str]:
    """The columns' names; a required one may be written in another case and with spaces around it."""
    wanted = {_folded(column): column for column in required if column not in names}
    names = [wanted.get(_folded(name), name) for name in names]
    if missing := [column for column in required if column not in names]:
        shown = ", ".join(name[:40] for name in names[:20]) or "nothing"
        raise MissingColumnError(
            missing[0],
            f"{path}, line {line}: the header has no column {missing[0]!r}; it has: {shown}. "
            f"The first line must name the columns: {','.join(required)}",
        )
    if twice := [name for name, count in Counter(names).items() if count > 1 and name in required]:
        raise DatasetError(f"{path}, line {line}: the header has the column {twice[0]!r} twice. Rename one.")
    return names


def _folded(name: str) -> str:
    return name.strip().strip("\ufeff").casefold()


def _jsonl_rows(path: Path, text: io.TextIOWrapper) -> Iterator[Row]:
    for line, content in enumerate(text, start=1):
        if not content.strip():
            continue
        try:
            row = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            is_whole_file = line == 1 and (content.lstrip()[:1] == "[" or content.strip() == "{")
            hint = " Write each object on a line of its own, without a list around them." if is_whole_file else ""
            raise DatasetError(f"{path}, line {line}: not JSON: {error}.{hint}") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{path}, line {line}: a JSON object is expected, one a line.")
        yield line, row
