"""Bringing a database to this version's tables, with Alembic; safe to run twice, and twice at once.

A database that is up to date is told without importing Alembic, which would cost a third of a second at every start.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import Connection

from kgents.errors import Conflict, KgentsError, Unavailable
from kgents.store.engine import Scope, Store, parse_url
from kgents.store.failures import is_busy, is_collision, is_outage
from kgents.store.roles import verify_application_role

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0001"
_WAIT = 30.0  # seconds for another migration of the same file
_LOCK = 7_205_759_403_792  # any number that only kgents' migrations use, for PostgreSQL's advisory lock
_CURRENT = sa.text("SELECT version_num FROM alembic_version")
_OLDEST = sa.text("SELECT oldest FROM schema_support")

# Another migration may take its time; but a table's lock that isn't to be had soon would hold up every request that
# comes after us. Row-level security binds the owner too, and a migration has to see every tenant's rows.
_PREPARE = ("SET LOCAL lock_timeout = '60s'", f"SELECT pg_advisory_xact_lock({_LOCK})")
_LIMITS = (
    "SET LOCAL lock_timeout = '5s'",
    "SET LOCAL statement_timeout = '15min'",
    "SELECT set_config('kgents.tenants', '*', true)",
)


def current(connection: Connection) -> str | None:
    """The revision that the database is at; None for an empty one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(_CURRENT).scalar_one_or_none()
    return revision


def _supports(connection: Connection) -> bool:
    """Whether this version works with the tables of a newer one, as that one left word."""
    if not sa.inspect(connection).has_table("schema_support"):
        return False
    oldest: str | None = connection.execute(_OLDEST).scalar_one_or_none()
    return oldest is not None and oldest <= HEAD


def migrate(url: str) -> list[str]:
    """Apply what is missing, in one transaction; answers the revisions that were applied, none when it is up to date,
    or newer and such that this version works with it.

    `url` is the owner's on PostgreSQL. Raises Conflict when this version can't work with the database of a newer one or
    the database refuses, Unavailable when it can't be reached or written to, Unprocessable for a URL that names no
    database; then nothing was changed.
    """
    parsed = parse_url(url)
    try:
        if parsed.get_backend_name() == "sqlite":
            return _migrate_sqlite(parsed)
        return asyncio.run(_migrate_postgres(parsed))
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise _refused(error) from error


def _migrate_sqlite(url: sa.URL) -> list[str]:
    Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"isolation_level": None, "timeout": _WAIT})
    try:
        with engine.connect() as connection:
            _use_wal(connection)
            connection.exec_driver_sql("PRAGMA synchronous=FULL")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                applied = _upgrade(connection)
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
            connection.exec_driver_sql("COMMIT")
            return applied
    finally:
        engine.dispose()


def _use_wal(connection: Connection) -> None:
    """Have the file use a write-ahead log. SQLite's own waiting leaves out a file that another is doing this to."""
    deadline = time.monotonic() + _WAIT
    while True:
        try:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            return
        except sa.exc.OperationalError as error:
            if not is_busy(error.orig) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


async def _migrate_postgres(url: sa.URL) -> list[str]:
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(url, connect_args={"timeout": 5})
    try:
        async with engine.begin() as connection:
            for statement in (*_PREPARE, *_LIMITS):
                await connection.exec_driver_sql(statement)
            return await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection) -> list[str]:
    before = current(connection)
    if before == HEAD or (before is not None and before > HEAD and _supports(connection)):
        return []
    from alembic import command
    from alembic.script import ScriptDirectory

    config = _config(connection)
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    if before is not None and before not in known:
        raise newer(before)
    command.upgrade(config, HEAD)
    known.reverse()
    return known[known.index(before) + 1 :] if before else known


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _refused(error: sa.exc.SQLAlchemyError | OSError) -> KgentsError:
    reason = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    if is_outage(error) or is_collision(error):
        return Unavailable(
            f"The database can't be migrated: {reason}. Nothing was changed. Check that it runs and can be written to, "
            "then try again.",
            code="store-unavailable",
        )
    return Conflict(
        f"The database refused the migration: {reason}. Nothing was changed. The role that migrates must own the "
        "tables, and the database must be kgents' own.",
        code="migration-refused",
    )


def newer(revision: str) -> Conflict:
    """The refusal of a database that a newer kgents has changed too much."""
    return Conflict(
        f"The database is at revision {revision!r}, which this version of kgents (revision {HEAD!r}) can't work with: "
        "a newer version has used it. Install that version again; nothing was changed.",
        code="database-newer",
    )


async def check_current(store: Store) -> None:
    """Raise Conflict unless this version works with the database, which is at its own revision or at a newer one that
    keeps to it, as in a rolling update; and unless the role is one that tenants are safe with.
    """

    def look(connection: Connection) -> tuple[str | None, bool]:
        found = current(connection)
        is_known = found == HEAD or (found is not None and found > HEAD and _supports(connection))
        if is_known:
            verify_application_role(connection)
        return found, is_known

    found, is_known = await store.read(Scope.system(), look)
    if is_known:
        return
    if found is None or found < HEAD:
        raise Conflict(
            f"The database is at revision {found!r}, and this version of kgents needs {HEAD!r}. Run: kgents migrate",
            code="database-older",
        )
    raise newer(found)
