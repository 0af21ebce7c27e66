"""Many rows at once: one statement, compiled once, given to the driver with plain tuples.

SQLAlchemy spells the statement for the database; its work per row and per column is left out, because the rows are
made by ``rows.py`` as the database takes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from scheduler.store.database import Database
from scheduler.store.rows import Values

T = TypeVar("T")
BLOCK, GRAIN = 256, 32
"""Most rows in one statement, and what the lengths of blocks are multiples of, unless they are shorter: the driver
keeps the statements that it has compiled, one for each length."""


class _Statement:
    def __init__(self, database: Database, statement: Any, names: Sequence[str]) -> None:
        """``names``: of the statement's parameters, in the order of a row's values."""
        dialect = database.dialect
        compiled = statement.compile(dialect=dialect, column_keys=list(names))
        assert not dialect.positional or compiled.positiontup == list(names), compiled.positiontup
        self._text = str(compiled)
        self._names = None if dialect.positional else tuple(names)

    def write(self, connection: sa.Connection, values: Sequence[Values]) -> None:
        """Carry it out for every row."""
        if values:
            names = self._names
            given = list(values) if names is None else [dict(zip(names, row, strict=True)) for row in values]
            connection.exec_driver_sql(self._text, given)


class Bulk(_Statement):
    """Inserts rows of all the table's columns; with ``key``, a row that is there gets the ``progress`` columns."""

    def __init__(self, database: Database, table: sa.Table, *progress: str, key: Sequence[str] = ()) -> None:
        insert: Any = sqlite.insert if database.is_sqlite else postgresql.insert
        statement = insert(table)
        if key:
            changed = {name: getattr(statement.excluded, name) for name in progress}
            statement = statement.on_conflict_do_update(index_elements=list(key), set_=changed)
        super().__init__(database, statement, table.columns.keys())
        self._row = f"({', '.join('?' * len(table.columns))})"

    def write(self, connection: sa.Connection, values: Sequence[Values]) -> None:
        """Carry it out for every row. SQLite takes many in one statement in four fifths of the time."""
        if self._names:
            super().write(connection, values)
            return
        for block in _blocks(values):
            text = self._text.replace(self._row, ", ".join([self._row] * len(block)), 1)
            connection.exec_driver_sql(text, tuple(chain.from_iterable(block)))


class Change(_Statement):
    """Sets the ``progress`` columns of rows that are there; the row's ``key`` is the last value."""

    def __init__(self, database: Database, table: sa.Table, *progress: str, key: str) -> None:
        statement = sa.update(table).where(table.c[key] == sa.bindparam("row_key"))
        super().__init__(database, statement, [*progress, "row_key"])


def _blocks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    start = 0
    while rest := len(rows) - start:
        size = rest if rest < GRAIN else min(rest - rest % GRAIN, BLOCK)
        yield rows[start : start + size]
        start += size
