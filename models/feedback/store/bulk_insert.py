"""Many rows into one table, with less work for each than SQLAlchemy has."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Table


class Insertion:
    """An INSERT into `table` as SQLAlchemy spells it, whose values the driver gets without a detour.

    `Connection.execute` makes a dictionary and a tuple of each row and looks up how the column of each value keeps it.
    Here that is known, and the values of a column are done together: a third of the time.
    """

    def __init__(self, table: Table, statement: Any, dialect: Dialect):
        columns = [column for column in table.columns if column is not table.autoincrement_column]
        names = [column.name for column in columns]  # in the order in which SQLAlchemy writes them
        self._sql = str(statement.inline().compile(dialect=dialect, column_keys=names))
        self._names = None if dialect.positional else names
        self._values = attrgetter(*names)
        self._binds = [column.type.dialect_impl(dialect).bind_processor(dialect) for column in columns]

    def run(self, connection: Connection, rows: Iterable[object]) -> None:
        """Insert `rows`, at least one, whose attributes have the names of the columns."""
        columns = zip(*map(self._values, rows), strict=True)
        bound = [map(bind, column) if bind else column for bind, column in zip(self._binds, columns, strict=True)]
        values = list(zip(*bound, strict=True))
        if self._names is None:
            connection.exec_driver_sql(self._sql, values)
        else:
            connection.exec_driver_sql(self._sql, [dict(zip(self._names, row, strict=True)) for row in values])
