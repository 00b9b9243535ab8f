"""What work costs a database, counted, so that it does not depend on the machine."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy import Connection

_STEPS = 10
_ROWS = sa.text("SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables")


def cost_of(connection: Connection, work: Callable[[], object]) -> int:
    """The rows that PostgreSQL reads, or the steps (in tens) that SQLite's machine takes, to do the work."""
    if connection.dialect.name == "sqlite":
        return _steps(connection, work)
    before = connection.execute(_ROWS).scalar_one()
    work()
    return int(connection.execute(_ROWS).scalar_one() - before)


def _steps(connection: Connection, work: Callable[[], object]) -> int:
    driver = connection.connection.driver_connection
    assert driver is not None
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    driver.set_progress_handler(count, _STEPS)
    try:
        work()
    finally:
        driver.set_progress_handler(None, 0)
    return steps
