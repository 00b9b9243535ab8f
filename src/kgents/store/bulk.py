"""Statements that are executed for many rows at once: what a group of requests writes to one table.

The statement is compiled once for each database, and the rows are tuples that go to the driver as they are:
SQLAlchemy's own execution of many rows takes longer to look at them than SQLite takes to write them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import Connection

Row = Sequence[Any]
_CHUNKS = (64, 32, 16, 8, 4, 2, 1)  # rows in one INSERT of SQLite; few sizes, so that the driver keeps all prepared


class ManyRows:
    """An INSERT or UPDATE. `names` says which bound parameter each value of a row is."""

    def __init__(self, statement: sa.Insert | sa.Update, names: Sequence[str]) -> None:
        self._statement = statement
        self._names = list(names)
        self._compiled: dict[str, tuple[str, itemgetter[Any] | None]] = {}
        self._chunks: dict[int, str] = {}

    def __call__(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Execute it for each row. Raises what SQLAlchemy raises."""
        if not rows:
            return
        text, order = self._compiled.get(connection.dialect.name) or self._compile(connection.dialect)
        if order is not None:
            rows = [order(row) for row in rows]
        if connection.dialect.name != "sqlite":
            connection.exec_driver_sql(text, [tuple(row) for row in rows])
            return
        driver = cast("sqlite3.Connection", connection.connection.driver_connection)
        try:
            if self._statement.is_insert:
                self._insert(driver, rows)
            else:
                driver.executemany(text, rows)
        except sqlite3.Error as error:
            raise _translated(text, error) from error

    def _insert(self, driver: sqlite3.Connection, rows: Sequence[Row]) -> None:
        """A chunk is one step of SQLite: a step gives up the interpreter's lock, which others are waiting for."""
        at = 0
        for size in _CHUNKS:
            while len(rows) - at >= size:
                driver.execute(self._chunks[size], tuple(chain.from_iterable(rows[at : at + size])))
                at += size

    def _compile(self, dialect: sa.Dialect) -> tuple[str, itemgetter[Any] | None]:
        keys = self._names if self._statement.is_insert else None
        compiled = self._statement.compile(dialect=dialect, column_keys=keys)
        text = str(compiled)
        positions = [self._names.index(name) for name in compiled.positiontup or ()]
        order = None if positions == list(range(len(self._names))) else itemgetter(*positions)
        if dialect.name == "sqlite":
            head, _, values = text.rpartition(" VALUES ")
            self._chunks = {size: f"{head} VALUES {', '.join([values] * size)}" for size in _CHUNKS}
        self._compiled[dialect.name] = text, order
        return text, order


def _translated(text: str, error: sqlite3.Error) -> Exception:
    """The driver's error as SQLAlchemy raises it; without the rows, which may hold what a tenant said."""
    found = sa.exc.DBAPIError.instance(text, None, error, sqlite3.Error, hide_parameters=True)
    return cast("Exception", found)


def insert_many(table: sa.Table, names: Sequence[str] | None = None) -> ManyRows:
    """An INSERT of rows with values for these columns (all, in the table's order)."""
    return ManyRows(sa.insert(table), names or [column.name for column in table.columns])
