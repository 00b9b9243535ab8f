"""Bringing a database to this version's tables, with Alembic; safe to run twice, and twice at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from kgents.errors import Conflict
from kgents.store.engine import Scope, Store, is_outage, unavailable

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0001"
_LOCK = 7_205_759_403_792  # any number that only kgents' migrations use, for PostgreSQL's advisory lock
_CURRENT = sa.text("SELECT version_num FROM alembic_version")


def current(connection: Connection) -> str | None:
    """The revision that the database is at; None for an empty one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(_CURRENT).scalar_one_or_none()
    return revision


def migrate(url: str) -> list[str]:
    """Apply what is missing, in one transaction; answers the revisions that were applied.

    `url` is the owner's on PostgreSQL. Raises Conflict when the database is of a newer version, Unavailable when it
    can't be reached; then nothing was changed.
    """
    try:
        if make_url(url).get_backend_name() == "sqlite":
            return _migrate_sqlite(url)
        return asyncio.run(_migrate_postgres(url))
    except Exception as error:
        if is_outage(error):
            raise unavailable(error) from error
        raise


def _migrate_sqlite(url: str) -> list[str]:
    path = make_url(url).database
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"isolation_level": None, "timeout": 30.0})
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
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


async def _migrate_postgres(url: str) -> list[str]:
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"), connect_args={"timeout": 5})
    try:
        async with engine.begin() as connection:
            await connection.execute(sa.text("SET LOCAL lock_timeout = '30s'"))
            await connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            return await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection) -> list[str]:
    before = current(connection)
    if before == HEAD:
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


def newer(revision: str) -> Conflict:
    """The refusal of a database that a newer kgents has used."""
    return Conflict(
        f"The database is at revision {revision!r}, which this version of kgents (revision {HEAD!r}) does not know: a "
        "newer version has used it. Install that version again; nothing was changed.",
        code="database-newer",
    )


async def check_current(store: Store) -> None:
    """Raise Conflict unless the database is at this version's revision or a later one of the same tables."""
    found = await store.read(Scope.system(), current)
    if found is None or found < HEAD:
        raise Conflict(
            f"The database is at revision {found!r}, and this version of kgents needs {HEAD!r}. Run: kgents migrate",
            code="database-older",
        )
    if found > HEAD:
        raise newer(found)
