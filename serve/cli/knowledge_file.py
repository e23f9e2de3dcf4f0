"""Files of the knowledge base: read whole and checked before anything is sent, and written."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError

from models.data.records import DatasetError, column_fault, is_csv, stream_rows
from models.knowledge.types import Entry

COLUMNS = ("id", "question", "answer", "language", "tags")
_REQUIRED = ("question", "answer")
_SEPARATORS = re.compile("[;,|]")
_MAX_FAULTS = 20


class KnowledgeFile(NamedTuple):
    """The entries of a file, without repeated ones, and what is odd in it, as sentences."""

    entries: list[Entry]
    notes: list[str]


def read_entries(file: Path) -> KnowledgeFile:
    """The entries of a CSV or JSONL file with `question`, `answer` and, if it has them, `id`, `language`, `tags`.

    Raises DatasetError with all lines that have a fault.
    """
    found: dict[str, tuple[int, Entry]] = {}
    faults: list[str] = []
    unread: dict[str, None] = {}
    repeated = 0
    for line, row in stream_rows(file, required=_REQUIRED):
        named = {str(column).strip().lower(): value for column, value in row.items()}
        unread |= dict.fromkeys(name for name in named if name not in COLUMNS and name)
        entry = _entry(named)
        if isinstance(entry, str):
            faults.append(f"line {line}: {entry}")
            continue
        first, same = found.setdefault(entry.key, (line, entry))
        if first != line and same == entry:
            repeated += 1
        elif first != line:
            what = "id" if entry.id is not None else "question"
            faults.append(f"line {line}: has the {what} of line {first}, and other content; keep one of them")
    if faults:
        raise DatasetError(_sentence(file, faults))
    if not found:
        raise DatasetError(f"{file}: there are no entries.")
    notes = [f"{repeated:,} repeated lines are left out"] if repeated else []
    if unread:
        shown = ", ".join(name[:40] for name in [*unread][:5])
        notes.append(f"not read: the columns {shown}; read are {', '.join(COLUMNS)}")
    return KnowledgeFile([entry for _, entry in found.values()], notes)


def _entry(row: dict[str, Any]) -> Entry | str:
    """The entry of a row, or what is wrong with it."""
    for column in _REQUIRED:
        if fault := column_fault(row, column):
            return fault
    values = {column: row[column] for column in COLUMNS if row.get(column) not in (None, "")}
    values |= {column: row[column] for column in _REQUIRED}
    for column in ("id", "language"):
        if isinstance(values.get(column), str):
            values[column] = values[column].strip()
            if not values[column]:
                del values[column]
    if isinstance(tags := values.get("tags"), str):
        values["tags"] = _tags(tags)
    try:
        return Entry.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"


def _tags(cell: str) -> list[Any]:
    """The tags of a CSV's cell: separated, or a JSON list, as `_cell` writes tags that have separators in them."""
    if cell.startswith("["):
        with suppress(ValueError):
            return list(orjson.loads(cell))
    return [tag.strip() for tag in _SEPARATORS.split(cell) if tag.strip()]


def _cell(tags: list[str]) -> str:
    """What `_tags` reads as the same tags."""
    joined = ";".join(tags)
    return joined if _tags(joined) == tags else orjson.dumps(tags).decode()


def _sentence(file: Path, faults: list[str]) -> str:
    shown = "\n".join(f"  {fault}" for fault in faults[:_MAX_FAULTS])
    more = f"\n  and {len(faults) - _MAX_FAULTS:,} more" if len(faults) > _MAX_FAULTS else ""
    return f"{file}: nothing was sent, since of its entries {len(faults):,} cannot be stored:\n{shown}{more}"


def write_entries(file: Path, entries: Iterable[dict[str, Any]]) -> int:
    """Write entries to a .csv or .jsonl file, from which `read_entries` reads the same; how many.

    The file is replaced when all are written: a server that goes away meanwhile leaves the old one. Raises OSError, and
    DatasetError for a file with another ending.
    """
    if file.suffix.lower() not in (".csv", ".jsonl"):
        raise DatasetError(f"{file}: give a .csv or .jsonl file to write.")
    draft = file.with_name(f".{file.name}.part")
    try:
        count = _write(draft, entries, as_csv=is_csv(file))
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    return count


def _write(file: Path, entries: Iterable[dict[str, Any]], as_csv: bool) -> int:
    count = 0
    with file.open("w", encoding="utf-8", newline="") as opened:
        if as_csv:
            table = csv.writer(opened)
            table.writerow(COLUMNS)
            for count, entry in enumerate(entries, start=1):  # noqa: B007
                table.writerow([*(entry[column] or "" for column in COLUMNS[:-1]), _cell(entry["tags"])])
        else:
            for line in _lines(entries):
                opened.write(line)
                count += 1
    return count


def _lines(entries: Iterable[dict[str, Any]]) -> Iterator[str]:
    for entry in entries:
        yield orjson.dumps({column: entry[column] for column in COLUMNS if entry[column]}).decode() + "\n"
