"""Files of corrections: read as training files are, and sent in requests that the server takes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from models.data.dataset import read_rows
from serve.cli.client import ServerError, call

_BATCH_ITEMS = 1000  # the server's default limit
_BATCH_BYTES = 1 << 18  # a quarter of the server's default limit, and of what proxies in front of it allow
_TRIES = 5
_MAX_WAIT_S = 10.0
_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Line(NamedTuple):
    """A correction as JSON, and the number of its line in the file."""

    number: int
    correction: bytes


def read_corrections(file: Path) -> list[Line]:
    """The corrections of a file. Raises DatasetError with the line number; then nothing was sent."""
    is_json = not {".jsonl", ".ndjson"}.isdisjoint(suffix.lower() for suffix in file.suffixes)
    convert = dict[str, Any] if is_json else _from_cells
    return [Line(number, orjson.dumps(convert(row))) for number, row in read_rows(file, required=())]


def send(url: str, path: str, lines: Sequence[Line]) -> Iterator[tuple[int, dict[str, Any]]]:
    """POST the lines to `path` of the server at `url`; (line number, result) for each.

    A result is `{"status"}` or `{"error", "code"}`. Raises ServerError when the server does not answer, or when it
    refuses for a reason that is not in the lines.
    """
    for batch in _batches(lines):
        yield from _send(url, path, batch)


def _batches(lines: Sequence[Line]) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size = 0
    for line in lines:
        if batch and (len(batch) == _BATCH_ITEMS or size + len(line.correction) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line.correction) + 1
    if batch:
        yield batch


def _send(url: str, path: str, batch: Sequence[Line]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Send the batch, in halves where the server takes no request of its bytes or items."""
    try:
        results = _post(url, path, batch)
    except ServerError as error:
        if error.status not in (413, 422):
            raise
        if len(batch) == 1:
            yield batch[0].number, {"error": str(error), "code": error.body.get("code", "")}
            return
        middle = len(batch) // 2
        yield from _send(url, path, batch[:middle])
        yield from _send(url, path, batch[middle:])
    else:
        yield from zip((line.number for line in batch), results, strict=True)


def _post(url: str, path: str, batch: Sequence[Line]) -> list[dict[str, Any]]:
    """One result per line. Waits as the server asks while it is overloaded or its store is away."""
    body = b'{"feedback":[' + b",".join(line.correction for line in batch) + b"]}"
    tries = 0
    while True:
        try:
            answer = call(url, path, body)
        except ServerError as error:
            tries += 1
            if "results" in error.body:
                answer = error.body
            elif error.retry_after_s is None or tries == _TRIES:
                raise
            else:
                time.sleep(min(error.retry_after_s, _MAX_WAIT_S))
                continue
        try:
            results: list[dict[str, Any]] = answer["results"]
        except (KeyError, TypeError):
            raise ServerError(f"What answers at {url} is not Flywheel: it sends no results.") from None
        return results


def _from_cells(row: dict[str, Any]) -> dict[str, Any]:
    """A CSV row as a correction: empty cells are left out; `consent`, `index` and `value` become JSON's types."""
    correction = {column.strip().lower(): cell for column, cell in row.items() if cell}
    if (consent := str(correction.get("consent", "")).strip().lower()) in _FLAGS:
        correction["consent"] = _FLAGS[consent]
    if (index := str(correction.get("index", "")).strip()).isdecimal():
        correction["index"] = int(index)
    with suppress(ValueError):  # the server says what is wrong
        if "value" in correction and math.isfinite(value := float(correction["value"])):
            correction["value"] = value
    return correction
