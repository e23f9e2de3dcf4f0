"""Tables of CSV, JSONL and Parquet files, read as a stream of chunks of columns.

Memory is bounded by a chunk, whatever the length of the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.data.naming import Naming, joined
from models.data.records import ENDINGS, DatasetError, MissingColumnError, is_csv, stream_fields, stream_rows

PARQUET = ".parquet"
_CHUNK_ROWS = 2_048  # of lists, which Python's garbage collector visits: larger chunks take several times as long
_PARQUET_ROWS = 65_536
_MISSING = ("", None)

Values = Sequence[Any] | NDArray[Any]
"""a column of a chunk: strings of a CSV file, what JSON has, or a numpy array of numbers of a Parquet file"""


@dataclass(frozen=True)
class Chunk:
    """Some rows of a table. All columns have one length; a value that a row lacks is None."""

    lines: NDArray[np.uint32]
    """line of each row in its file; of a Parquet file, its row, from 1"""
    columns: dict[str, Values]
    _rows: Sequence[dict[str, Any]] = ()
    without_zone: frozenset[str] = frozenset()
    """the columns of Parquet's dates, and of its timestamps without a time zone"""

    def __len__(self) -> int:
        return len(self.lines)

    def row(self, at: int) -> dict[str, Any]:
        """One row, for an error's sentence."""
        if self._rows:
            return self._rows[at]
        return {
            name: values[at].item() if isinstance(values, np.ndarray) else values[at]
            for name, values in self.columns.items()
        }

    def renamed(self, naming: Naming) -> Chunk:
        """The rows with our names of the columns."""
        if not naming.columns:
            return self
        columns = {name: values for name, values in self.columns.items() if naming.keeps(name)}
        zoneless = {name for name in self.without_zone if naming.keeps(name)}
        for name, theirs in naming.columns.items():
            if given := [self.columns[column] for column in theirs if column in self.columns]:
                columns[name] = given[0] if len(theirs) == 1 else [joined(row) for row in zip(*given, strict=True)]
                zoneless |= {name for column in theirs if column in self.without_zone}
        return Chunk(self.lines, columns, [naming.row(row) for row in self._rows], frozenset(zoneless))

    def with_events(self, events: Sequence[Any], keep: NDArray[np.bool_]) -> Chunk:
        """The rows of `keep`, (rows,), with these values of `event`, (rows,)."""
        at = np.flatnonzero(keep).tolist()
        columns: dict[str, Values] = {
            name: values[at] if isinstance(values, np.ndarray) else [values[row] for row in at]
            for name, values in {**self.columns, "event": events}.items()
        }
        rows = [{**self._rows[row], "event": events[row]} for row in at] if self._rows else ()
        return replace(self, lines=self.lines[at], columns=columns, _rows=rows)

    def get(self, column: str) -> Values:
        return self.columns.get(column, [None] * len(self))


def read_chunks(path: Path, required: tuple[str, ...]) -> Iterator[Chunk]:
    """The rows of a file. Raises DatasetError for a file that is no table, or whose header lacks `required` columns."""
    if path.suffix.lower() == PARQUET:
        yield from _parquet_chunks(path, required)
        return
    if is_csv(path):
        yield from _csv_chunks(path, required)
        return
    rows = stream_rows(path, required=required)
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        lines, found = zip(*chunk, strict=True)
        names = dict.fromkeys(name for row in found for name in row)
        columns: dict[str, Values] = {name: [row.get(name) for row in found] for name in names}
        yield Chunk(np.array(lines, np.uint32), columns, found)


def _csv_chunks(path: Path, required: tuple[str, ...]) -> Iterator[Chunk]:
    fields = stream_fields(path, required=required)
    _, header = next(fields)
    while chunk := list(islice(fields, _CHUNK_ROWS)):
        lines, found = zip(*chunk, strict=True)
        # A row may have fewer fields than the header; one that has more has them empty.
        columns = dict(zip(header, zip_longest(*found, fillvalue=None), strict=False))
        missing: list[Any] = [None] * len(lines)
        yield Chunk(np.array(lines, np.uint32), {name: columns.get(name, missing) for name in header})


def unit_of(path: Path) -> str:
    """What the numbers of a file's rows count, in an error."""
    return "row" if path.suffix.lower() == PARQUET else "line"


def _parquet_chunks(path: Path, required: tuple[str, ...]) -> Iterator[Chunk]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DatasetError(
            f"{path}: Parquet is read by pyarrow, which is missing: pip install 'flywheel-serve[train]'"
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if missing := [column for column in required if column not in names]:
                raise MissingColumnError(
                    missing[0],
                    f"{path}: there is no column {missing[0]!r}; it has: {', '.join(names[:20])}. "
                    f"These are needed: {', '.join(required)}",
                )
            without_zone = frozenset(field.name for field in file.schema_arrow if _is_without_zone(field.type))
            start = 1
            for batch in file.iter_batches(_PARQUET_ROWS):
                lines = np.arange(start, start + len(batch), dtype=np.uint32)
                columns = zip(names, map(_parquet_values, batch.columns), strict=True)
                yield Chunk(lines, dict(columns), without_zone=without_zone)
                start += len(batch)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{path}: cannot be read as Parquet: {error}. Write it again, or as one of {', '.join(ENDINGS)}."
        ) from error


def _is_without_zone(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_date(kind) or (pa.types.is_timestamp(kind) and kind.tz is None))


def _parquet_values(column: Any) -> Values:
    """A column of a record batch; times become seconds since 1970, and null a NaN where the others are numbers."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_date(kind):
        column, kind = column.cast(pa.timestamp("ms")), pa.timestamp("ms")
    if pa.types.is_timestamp(kind):
        microseconds = column.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64())
        values: NDArray[np.float64] = microseconds.to_numpy(zero_copy_only=False).astype(np.float64) / 1e6
        return values
    if pa.types.is_decimal(kind):
        column, kind = column.cast(pa.float64()), pa.float64()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return numbers
    found: list[Any] = column.to_pylist()
    return found


def numbers(values: Values) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(rows,) numbers, NaN where one is missing; and (rows,) where something else stands, or an infinite number."""
    if isinstance(values, np.ndarray):
        found = values.astype(np.float64)
        return found, np.isinf(found)
    try:
        found = np.fromiter(map(float, values), np.float64, len(values))
    except (TypeError, ValueError, OverflowError):
        found = np.fromiter(map(_number, values), np.float64, len(values))
    return found, np.isinf(found)


def _number(value: Any) -> float:
    """The number; NaN if it is missing, infinite if it is none."""
    if value in _MISSING:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.inf


class Names(dict[Any, int]):
    """Numbers of names in the order of their first appearance; looking up what a file has adds it.

    `normalized` gives the name of a string; None where it is none, whose number is -1. Whole numbers are names too.
    """

    def __init__(self, normalized: Callable[[str], str | None]):
        super().__init__()
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._normalized = normalized

    def __missing__(self, value: Any) -> int:
        name = self._name(value)
        if name is None:
            return -1
        number = self._numbers.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
        self[value] = number
        return number

    def numbers_of(self, values: Values) -> NDArray[np.int32]:
        """(rows,): the number of each name; -1 for what is none."""
        if isinstance(values, np.ndarray):
            different, inverse = np.unique(values, return_inverse=True)
            first = np.full(len(different), len(values))
            np.minimum.at(first, inverse, np.arange(len(values)))
            found = np.empty(len(different), np.int32)
            for at in np.argsort(first).tolist():  # in the order of appearance, as in other files
                found[at] = self[different[at].item()]
            return found[inverse]
        try:
            return np.fromiter(map(self.__getitem__, values), np.int32, len(values))
        except TypeError:  # a list or an object of JSON cannot be looked up
            hashable = [value if isinstance(value, str | int | float) else None for value in values]
            return np.fromiter(map(self.__getitem__, hashable), np.int32, len(values))

    def find(self, name: str) -> int | None:
        """The number of a normalized name; None for one that has not appeared."""
        return self._numbers.get(name)

    def _name(self, value: Any) -> str | None:
        if isinstance(value, str):
            return self._normalized(value)
        if isinstance(value, bool) or value is None:
            return None
        if isinstance(value, int):
            return str(value)
        return str(int(value)) if isinstance(value, float) and value.is_integer() else None


class FeatureTable:
    """Numbers by row and column that become known one by one; the first one known of a cell stays."""

    def __init__(self) -> None:
        self._columns: dict[str, NDArray[np.float32]] = {}

    def add(self, column: str, rows: NDArray[np.int32], values: NDArray[np.float64]) -> None:
        """`values` of `rows`, both (n,); NaN and rows below 0 are skipped."""
        known = self._columns.get(column, np.zeros(0, np.float32))
        needed = int(rows.max(initial=-1)) + 1
        if needed == 0:
            return
        if needed > len(known):
            known = np.concatenate([known, np.full(max(needed, 2 * len(known)) - len(known), np.nan, np.float32)])
            self._columns[column] = known
        new = np.flatnonzero((rows >= 0) & ~np.isnan(values) & np.isnan(known[rows]))[::-1]
        known[rows[new]] = values[new]  # of several for one cell the last is written, which is the first in the file

    def matrix(self, rows: int) -> tuple[NDArray[np.float32], list[str]]:
        """(rows, columns), NaN where nothing is known, and the columns' names, sorted; without those that are empty."""
        names = sorted(name for name, values in self._columns.items() if not np.isnan(values).all())
        found = np.full((rows, len(names)), np.nan, np.float32)
        for at, name in enumerate(names):
            values = self._columns[name][:rows]
            found[: len(values), at] = values
        return found, names
