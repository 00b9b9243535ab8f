"""Statements of the hot path: what a group of requests reads and writes at once.

A statement is compiled once for each database, and values go to the driver as they are: SQLAlchemy's own execution
takes longer to look at them than SQLite takes to write them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, cast

import orjson
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql

Row = Sequence[Any]
_CHUNKS = (64, 32, 16, 8, 4, 2, 1)  # rows in one INSERT of SQLite; few sizes, so that the driver keeps all prepared


def driver_of(connection: Connection) -> sqlite3.Connection:
    """SQLite's own connection. What it raises is to be raised as `translated` says."""
    return cast("sqlite3.Connection", connection.connection.driver_connection)


def translated(text: str, error: sqlite3.Error) -> Exception:
    """The driver's error as SQLAlchemy raises it; without the values, which may hold what a tenant said."""
    found = sa.exc.DBAPIError.instance(text, None, error, sqlite3.Error, hide_parameters=True)
    return cast("Exception", found)


class ManyRows:
    """An INSERT or UPDATE. `names` says which bound parameter each value of a row is."""

    def __init__(self, statement: sa.Insert | sa.Update, names: Sequence[str]) -> None:
        self._statement = statement
        self._names = list(names)
        self._texts: dict[str, tuple[str, itemgetter[Any] | None]] = {}
        self._chunks: dict[int, str] = {}

    def __call__(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Execute it for each row, one after the other. Raises what SQLAlchemy raises."""
        if not rows:
            return
        dialect = connection.dialect
        if dialect.name == "sqlite":
            self._in_chunks(dialect, driver_of(connection), rows)
            return
        text, order = self._texts.get(dialect.name) or self._compile(dialect)
        if order is not None:
            rows = [order(row) for row in rows]
        connection.exec_driver_sql(text, [tuple(row) for row in rows])

    def _in_chunks(self, dialect: sa.Dialect, driver: sqlite3.Connection, rows: Sequence[Row]) -> None:
        """A chunk is one step of SQLite: a step gives up the interpreter's lock, which others are waiting for."""
        chunks = self._chunks or self._compile_chunks(dialect)
        at = 0
        try:
            for size in _CHUNKS:
                while len(rows) - at >= size:
                    driver.execute(chunks[size], tuple(chain.from_iterable(rows[at : at + size])))
                    at += size
        except sqlite3.Error as error:
            raise translated(chunks[1], error) from error

    def _compile(self, dialect: sa.Dialect) -> tuple[str, itemgetter[Any] | None]:
        text, positions = self._text(dialect)
        order = None if positions == list(range(len(self._names))) else itemgetter(*positions)
        self._texts[dialect.name] = text, order
        return text, order

    def _compile_chunks(self, dialect: sa.Dialect) -> dict[int, str]:
        """The statement for each number of rows, which it takes as a table of values named v: an INSERT selects from
        it, an UPDATE joins it.
        """
        text, positions = self._text(dialect)
        pieces = text.split("?")
        assert len(pieces) == len(positions) + 1
        columns = [f"v.c{position}" for position in positions]
        if self._statement.is_insert:
            head, _, tail = text.partition(" VALUES ")
            tail = tail.partition(")")[2]
            # The WHERE keeps SQLite from reading ON CONFLICT as the condition of a join.
            body = f"{head} SELECT {', '.join(columns)} FROM v WHERE true{tail}"  # noqa: S608 - no values
        else:
            joined = "".join(chain.from_iterable(zip(pieces, [*columns, ""], strict=True)))
            head, _, tail = joined.rpartition(" WHERE ")
            body = f"{head} FROM v WHERE {tail}"
        row = f"({', '.join('?' * len(self._names))})"
        names = ", ".join(f"c{position}" for position in range(len(self._names)))
        self._chunks = {size: f"WITH v({names}) AS (VALUES {', '.join([row] * size)}) {body}" for size in _CHUNKS}
        return self._chunks

    def _text(self, dialect: sa.Dialect) -> tuple[str, list[int]]:
        keys = self._names if self._statement.is_insert else None
        compiled = self._statement.compile(dialect=dialect, column_keys=keys)
        return str(compiled), [self._names.index(name) for name in compiled.positiontup or ()]


def insert_many(table: sa.Table, names: Sequence[str] | None = None) -> ManyRows:
    """An INSERT of rows with values for these columns (all, in the table's order)."""
    return ManyRows(sa.insert(table), names or [column.name for column in table.columns])


class Lookup:
    """A SELECT of the rows whose columns (of text and integers) are among the values of lists. `lists` names a list for
    each of them; with `lock` the rows are held to the end of the transaction, which SQLite does anyway.
    """

    def __init__(
        self,
        columns: Sequence[sa.ColumnElement[Any]],
        lists: Mapping[str, sa.ColumnElement[Any]],
        *,
        order_by: Sequence[sa.ColumnElement[Any]] = (),
        lock: bool = False,
    ) -> None:
        self._select = sa.select(*columns).order_by(*order_by)
        self._lists = lists
        self._lock = lock
        self._texts: dict[str, str] = {}

    def __call__(self, connection: Connection, **values: Sequence[str]) -> Sequence[Row]:
        """The rows, as the columns stand, in no order to rely on: `order_by` is that in which they are locked."""
        dialect = connection.dialect
        text = self._texts.get(dialect.name) or self._compile(dialect)
        if dialect.name != "sqlite":
            return connection.exec_driver_sql(text, tuple(list(values[name]) for name in self._lists)).all()
        try:
            lists = [orjson.dumps(values[name]).decode() for name in self._lists]
            rows: list[Row] = orjson.loads(driver_of(connection).execute(text, lists).fetchone()[0])
            return rows
        except sqlite3.Error as error:
            raise translated(text, error) from error

    def _compile(self, dialect: sa.Dialect) -> str:
        statement = self._select
        for name, column in self._lists.items():
            if dialect.name == "sqlite":
                among: sa.Select[Any] = sa.select(sa.column("value")).select_from(sa.func.json_each(sa.bindparam(name)))
                statement = statement.where(column.in_(among))
            else:
                array: sa.ColumnElement[Any] = sa.bindparam(name, type_=postgresql.ARRAY(sa.Text))
                statement = statement.where(column == sa.any_(array))
        if self._lock:
            statement = statement.with_for_update()
        if dialect.name == "sqlite":
            # All rows as one, since each row is a step, and a step gives up the interpreter's lock.
            statement = sa.select(sa.func.json_group_array(sa.func.json_array(*statement.subquery().c)))
        text = self._texts[dialect.name] = str(statement.compile(dialect=dialect))
        return text
