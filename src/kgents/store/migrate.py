"""Bringing a database to this version's tables, with Alembic; safe to run twice, and twice at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from kgents.errors import Conflict
from kgents.store.engine import Scope, Store
from kgents.store.failures import is_outage, unavailable

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


_ROLE = sa.text(
    "SELECT rolname, rolsuper OR rolbypassrls AS bypasses, EXISTS (SELECT FROM pg_tables WHERE schemaname = 'public' "
    "AND tablename = 'tenants' AND pg_has_role(current_user, tableowner, 'MEMBER')) AS owns "
    "FROM pg_roles WHERE rolname = current_user"
)


def verify_role(connection: Connection) -> None:
    """Raise Conflict when PostgreSQL's row-level security does not bind the role that we are connected as."""
    if connection.dialect.name != "postgresql":
        return
    role = connection.execute(_ROLE).one()
    if role.bypasses or role.owns:
        why = "is a superuser or has BYPASSRLS" if role.bypasses else "owns the tables"
        raise Conflict(
            f"The database role {role.rolname!r} {why}, so row-level security would not hold tenants apart. Connect as "
            "a role that is only a member of kgents_app (KGENTS_DATABASE_URL), and migrate as the owner "
            "(KGENTS_DATABASE_OWNER_URL).",
            code="database-role",
        )


async def check_current(store: Store) -> None:
    """Raise Conflict unless the database is at this version's revision, and the role one that tenants are safe with."""

    def look(connection: Connection) -> str | None:
        verify_role(connection)
        return current(connection)

    found = await store.read(Scope.system(), look)
    if found is None or found < HEAD:
        raise Conflict(
            f"The database is at revision {found!r}, and this version of kgents needs {HEAD!r}. Run: kgents migrate",
            code="database-older",
        )
    if found > HEAD:
        raise newer(found)
