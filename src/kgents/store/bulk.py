"""Statements of the hot path: what a group of requests reads and writes at once.

A statement is compiled once for each database, and values go to the driver as they are: SQLAlchemy's own execution
takes longer to look at them than SQLite takes to write them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, cast

import orjson
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from kgents.store.asyncpg_driver import fetch

Row = Sequence[Any]
_POSTGRESQL: Any = postgresql.dialect  # its constructor has no types
MOST_ROWS = 64  # in one statement of SQLite: the driver keeps those of all sizes prepared


def driver_of(connection: Connection) -> sqlite3.Connection:
    """SQLite's own connection. What it raises is to be raised as `translated` says."""
    return cast("sqlite3.Connection", connection.connection.driver_connection)


def translated(text: str, error: sqlite3.Error) -> Exception:
    """The driver's error as SQLAlchemy raises it; without the values, which may hold what a tenant said."""
    found = sa.exc.DBAPIError.instance(text, None, error, sqlite3.Error, hide_parameters=True)
    return cast("Exception", found)


class ManyRows:
    """An INSERT or UPDATE for many rows. `names` says which bound parameter each value of a row is.

    The rows are a table, v, which an INSERT selects from and an UPDATE joins: on PostgreSQL made of an array for
    each column, so that a statement has one text for any number of rows; on SQLite of values, with a text for each
    number. There a statement is one step, and a step gives up the interpreter's lock, which others are waiting for.
    """

    def __init__(self, statement: sa.Insert | sa.Update, names: Sequence[str]) -> None:
        self._statement = statement
        self._names = list(names)
        self._body = ""
        self._parts: dict[int, str] = {}

    def __call__(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Execute it for each row. Rows are inserted in their order; no two may be of one key. Raises what SQLAlchemy
        raises.
        """
        if not rows:
            return
        if connection.dialect.name == "sqlite":
            self._in_parts(driver_of(connection), rows)
            return
        kept = _kept(connection)
        if kept is None:
            _execute(connection, [(self, rows)])
        else:
            kept.append((self, rows))

    def _in_parts(self, driver: sqlite3.Connection, rows: Sequence[Row]) -> None:
        text = ""
        try:
            for at in range(0, len(rows), MOST_ROWS):
                part = rows[at : at + MOST_ROWS]
                text = self._parts.get(len(part)) or self._compile_part(len(part))
                driver.execute(text, tuple(chain.from_iterable(part)))
        except sqlite3.Error as error:
            raise translated(text, error) from error

    def _compile_part(self, size: int) -> str:
        if not self._body:
            self._body, _ = self._over("v", sqlite.dialect())
        row = f"({', '.join('?' * len(self._names))})"
        values = f"VALUES {', '.join([row] * size)}"
        text = self._parts[size] = f"WITH v({', '.join(self._columns())}) AS ({values}) {self._body}"
        return text

    def arrays(self, v: str, first: int) -> tuple[str, str, int]:
        """For PostgreSQL: the table `v` of arrays, bound from `$first` on, the statement over it, and the first number
        that is free then.
        """
        body, types = self._over(v, _POSTGRESQL(paramstyle="qmark"))
        arrays = ", ".join(f"${number}::{types[name]}[]" for number, name in enumerate(self._names, first))
        table = f"{v}({', '.join(self._columns())}) AS (SELECT * FROM unnest({arrays}))"  # noqa: S608 - names of types
        return table, body, first + len(self._names)

    def _columns(self) -> list[str]:
        return [f"c{number}" for number in range(len(self._names))]

    def _over(self, v: str, dialect: sa.Dialect) -> tuple[str, dict[str, str]]:
        """The statement with v's columns where its parameters were, and the SQL type of each parameter."""
        keys = self._names if self._statement.is_insert else None
        compiled = self._statement.compile(dialect=dialect, column_keys=keys)
        # An array has no collation.
        types = {name: bind.type.compile(dialect).partition(" COLLATE ")[0] for name, bind in compiled.binds.items()}
        columns = dict(zip(self._names, self._columns(), strict=True))
        values = [f"{v}.{columns[name]}" for name in compiled.positiontup or ()]
        if self._statement.is_insert:
            head, _, tail = str(compiled).partition(" VALUES ")
            # The WHERE keeps SQLite from reading ON CONFLICT as the condition of a join.
            select = f" SELECT {', '.join(values)} FROM {v} WHERE true"  # noqa: S608 - names of columns
            return head + select + tail.partition(")")[2], types
        pieces = str(compiled).split("?")
        joined = "".join(chain.from_iterable(zip(pieces, [*values, ""], strict=True)))
        head, _, tail = joined.rpartition(" WHERE ")
        return f"{head} FROM {v} WHERE {tail}", types


_Write = tuple[ManyRows, Sequence[Row]]
_TOGETHER = "kgents_together"
_texts: dict[tuple[ManyRows, ...], str] = {}


@contextmanager
def together(connection: Connection) -> Iterator[None]:
    """On PostgreSQL, writes of ManyRows in here go to the server as one statement at the end (or before a Lookup): each
    statement is a round trip, in which others wait for the rows that the transaction holds. No row may be written by
    two of them, and none is seen before. Raises what they raise, at the end. In a `together` that is within another,
    the writes are those of the outer one.
    """
    if connection.dialect.name == "sqlite" or _kept(connection) is not None:
        yield
        return
    info = connection.info  # which a connection that broke no longer gives
    info[_TOGETHER] = []
    try:
        yield
        _send(connection)
    finally:
        info.pop(_TOGETHER, None)


def _kept(connection: Connection) -> list[_Write] | None:
    return connection.info.get(_TOGETHER)


def _send(connection: Connection) -> None:
    if kept := _kept(connection):
        _execute(connection, kept)
        kept.clear()


def _execute(connection: Connection, writes: Sequence[_Write]) -> None:
    statements = tuple([statement for statement, _ in writes])
    text = _texts.get(statements)
    if text is None:
        parts = []
        number = 1
        for place, statement in enumerate(statements):
            table, body, number = statement.arrays(f"v{place}", number)
            parts.append(f"{table}, w{place} AS ({body})")
        # PostgreSQL carries out what nothing reads in the reverse order (ExecInitModifyTable and ExecPostprocessPlan),
        # and in theirs it has to be: two transactions that take the same rows in two orders wait for each other.
        text = _texts[statements] = f"WITH {', '.join(reversed(parts))} SELECT 1"
    fetch(connection, text, [list(column) for _, rows in writes for column in zip(*rows, strict=True)])


def insert_many(table: sa.Table, names: Sequence[str] | None = None) -> ManyRows:
    """An INSERT of rows with values for these columns (all, in the table's order)."""
    return ManyRows(sa.insert(table), names or [column.name for column in table.columns])


def adding(table: sa.Table, amounts: Sequence[str]) -> dict[str, ManyRows]:
    """By the database's name, an INSERT of rows with values for all columns, that adds to the `amounts` of a row with
    the same key.
    """

    def statement(dialect: Any) -> Any:
        insert = dialect.insert(table)
        return insert.on_conflict_do_update(
            index_elements=list(table.primary_key.columns),
            set_={name: table.c[name] + insert.excluded[name] for name in amounts},
        )

    names = [column.name for column in table.columns]
    return {name: ManyRows(statement(each), names) for name, each in (("sqlite", sqlite), ("postgresql", postgresql))}


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
            _send(connection)
            return fetch(connection, text, [list(values[name]) for name in self._lists])
        try:
            lists = [orjson.dumps(values[name]).decode() for name in self._lists]
            rows: list[Row] = orjson.loads(driver_of(connection).execute(text, lists).fetchone()[0])
            return rows
        except sqlite3.Error as error:
            raise translated(text, error) from error

    def _compile(self, dialect: sa.Dialect) -> str:
        statement = self._select.where(*(_among(dialect, column, name) for name, column in self._lists.items()))
        if self._lock:
            statement = statement.with_for_update()
        if dialect.name == "sqlite":
            # All rows as one, since each row is a step, and a step gives up the interpreter's lock.
            statement = sa.select(sa.func.json_group_array(sa.func.json_array(*statement.subquery().c)))
        text = self._texts[dialect.name] = str(statement.compile(dialect=dialect))
        return text


class Removal:
    """A DELETE, of the rows whose column (of text or integers) is among the values of a list."""

    def __init__(self, statement: sa.Delete, column: sa.Column[Any]) -> None:
        self._statement = statement
        self._column = column
        self._texts: dict[str, str] = {}

    def __call__(self, connection: Connection, values: Sequence[Any]) -> None:
        """Delete them. Raises what SQLAlchemy raises."""
        dialect = connection.dialect
        text = self._texts.get(dialect.name)
        if text is None:
            statement = self._statement.where(_among(dialect, self._column, "values"))
            text = self._texts[dialect.name] = str(statement.compile(dialect=dialect))
        if dialect.name != "sqlite":
            fetch(connection, text, [list(values)])
            return
        try:
            driver_of(connection).execute(text, [orjson.dumps(values).decode()])
        except sqlite3.Error as error:
            raise translated(text, error) from error


def _among(dialect: sa.Dialect, column: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[bool]:
    """That the column is one of the values of the list that is bound to `name`."""
    if dialect.name == "sqlite":
        return column.in_(sa.select(sa.column("value")).select_from(sa.func.json_each(sa.bindparam(name))))
    array: sa.ColumnElement[Any] = sa.bindparam(name, type_=postgresql.ARRAY(column.type))
    return column == sa.any_(array)
