"""What a database's failure is taken for."""

import sqlite3

import pytest
import sqlalchemy as sa

from kgents.errors import Unavailable
from kgents.store.failures import guard, is_collision, is_outage, is_write_in_read


class DriverError(Exception):
    """A driver's exception, as SQLAlchemy keeps it."""


def refused(kind=sa.exc.DBAPIError, **facts):
    original = DriverError("from the driver")
    for name, value in facts.items():
        setattr(original, name, value)
    return kind("SELECT 1", None, original)


@pytest.mark.parametrize(
    "error",
    [
        refused(sa.exc.OperationalError, sqlite_errorcode=sqlite3.SQLITE_FULL),
        refused(sa.exc.OperationalError, sqlite_errorcode=sqlite3.SQLITE_BUSY),
        refused(sa.exc.OperationalError, sqlite_errorcode=sqlite3.SQLITE_IOERR_WRITE),  # an extended code
        refused(sa.exc.DatabaseError, sqlite_errorcode=sqlite3.SQLITE_CORRUPT),
        refused(sqlstate="08003"),  # the connection is gone
        refused(sqlstate="53100"),  # disk full
        refused(sqlstate="57P01"),  # the server is shutting down
        refused(sqlstate="57P03"),  # the server is starting
        refused(sqlstate="57014"),  # the statement took too long
        refused(sqlstate="55P03"),  # a lock took too long
        refused(sqlstate="25006"),  # a standby
        refused(sa.exc.InterfaceError),  # the driver's own: the connection is closed
        sa.exc.TimeoutError("no connection was free"),
        ConnectionRefusedError(),
        TimeoutError(),
    ],
    ids=repr,
)
def test_a_database_that_is_away_is_an_outage(error):
    assert is_outage(error)


@pytest.mark.parametrize(
    "error",
    [
        refused(sa.exc.IntegrityError, sqlite_errorcode=sqlite3.SQLITE_CONSTRAINT_UNIQUE),
        refused(sa.exc.OperationalError, sqlite_errorcode=sqlite3.SQLITE_ERROR),  # no such table
        refused(sa.exc.DataError, sqlite_errorcode=sqlite3.SQLITE_TOOBIG),
        refused(sa.exc.IntegrityError, sqlstate="23505"),
        refused(sqlstate="22021"),  # a NUL in a text
        refused(sqlstate="22000"),  # a number over 64 bits
        refused(sa.exc.ProgrammingError, sqlstate="42501"),  # row-level security
        refused(sqlstate="40P01"),
        refused(sa.exc.ProgrammingError),
        ValueError("a bug"),
    ],
    ids=repr,
)
def test_a_statement_that_is_refused_is_no_outage(error):
    assert not is_outage(error)


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_a_deadlock_and_a_serialization_failure_are_collisions(state):
    assert is_collision(refused(sqlstate=state))


def test_a_statement_prepared_before_a_migration_is_a_collision():
    original = type("InvalidCachedStatementError", (DriverError,), {})()
    assert is_collision(sa.exc.NotSupportedError("SELECT 1", None, original))


def test_a_broken_constraint_is_no_collision():
    assert not is_collision(refused(sa.exc.IntegrityError, sqlstate="23505"))


class TestGuard:
    async def test_an_outage_becomes_unavailable_with_its_cause(self):
        cause = refused(sqlstate="57P01")

        async def work():
            raise cause

        with pytest.raises(Unavailable) as raised:
            await guard(work())
        assert raised.value.__cause__ is cause

    async def test_the_drivers_words_stay_out_of_the_detail(self):
        async def work():
            raise refused(sqlstate="28P01")

        with pytest.raises(Unavailable) as raised:
            await guard(work())
        assert "driver" not in raised.value.detail

    async def test_a_collision_may_be_tried_again(self):
        async def work():
            raise refused(sqlstate="40P01")

        with pytest.raises(Unavailable) as raised:
            await guard(work())
        assert raised.value.headers["Retry-After"] == "2"

    @pytest.mark.parametrize("facts", [{"sqlite_errorcode": sqlite3.SQLITE_READONLY}, {"sqlstate": "25006"}], ids=str)
    async def test_a_write_in_a_read_is_a_mistake_and_no_outage(self, facts):
        mistake = refused(sa.exc.OperationalError, **facts)
        assert is_write_in_read(mistake)

        async def work():
            raise mistake

        with pytest.raises(sa.exc.OperationalError):
            await guard(work(), only_reads=True)
