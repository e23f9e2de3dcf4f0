"""Files of corrections: read as training files are, and sent in requests that the server takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from models.data.dataset import read_rows
from serve.cli.batches import Line, Sender

_BATCH_ITEMS = 1000  # the server's default limit
_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def read_corrections(file: Path) -> list[Line]:
    """The corrections of a file. Raises DatasetError with the line number; then nothing was sent."""
    is_json = not {".jsonl", ".ndjson"}.isdisjoint(suffix.lower() for suffix in file.suffixes)
    convert = dict[str, Any] if is_json else _from_cells
    rows = ((number, convert(row)) for number, row in read_rows(file, required=()) if not _is_to_fill_in(row))
    return [Line(number, orjson.dumps(correction)) for number, correction in rows]


def send(url: str, path: str, lines: Sequence[Line]) -> Iterator[tuple[int, dict[str, Any]]]:
    """POST the lines to `path` of the server at `url`; (line number, result) for each.

    A result is `{"status"}` or `{"error", "code"}`. Raises ServerError when the server does not answer, or when it
    refuses for a reason that is not in the lines.
    """
    sender = Sender(url, path, "feedback", "results", _BATCH_ITEMS)
    for batch in sender.batches(lines):
        for results in sender.send(batch):
            yield from results


def _is_to_fill_in(row: dict[str, Any]) -> bool:
    """Whether this is a row of `flywheel review --out` that has no label yet."""
    return any(column.startswith("#") for column in row) and not str(row.get("label") or "").strip()


def _from_cells(row: dict[str, Any]) -> dict[str, Any]:
    """A CSV row as a correction; `consent`, `index` and `value` become JSON's types.

    Empty cells are left out, and columns whose names begin with #, which are for people.
    """
    correction = {column.strip().lower(): cell for column, cell in row.items() if cell and not column.startswith("#")}
    if (consent := str(correction.get("consent", "")).strip().lower()) in _FLAGS:
        correction["consent"] = _FLAGS[consent]
    if (index := str(correction.get("index", "")).strip()).isdecimal():
        correction["index"] = int(index)
    with suppress(ValueError):  # the server says what is wrong
        if "value" in correction and math.isfinite(value := float(correction["value"])):
            correction["value"] = value
    return correction
