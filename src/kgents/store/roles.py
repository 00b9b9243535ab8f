"""Whether PostgreSQL's row-level security holds tenants apart for the role that this process is connected as."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import Connection

from kgents.errors import Conflict
from kgents.store.tables import metadata

# A role may also become any role that it is a member of (SET ROLE), so those count like itself.
_WAYS_AROUND = sa.text(
    """
    SELECT current_user AS name,
        EXISTS (
            SELECT FROM pg_roles AS other
            WHERE (other.rolsuper OR other.rolbypassrls) AND pg_has_role(current_user, other.oid, 'MEMBER')
        ) AS bypasses,
        EXISTS (
            SELECT FROM pg_class AS owned
            WHERE owned.oid = ANY (CAST(CAST(:tables AS text[]) AS regclass[]))
                AND pg_has_role(current_user, owned.relowner, 'MEMBER')
        ) AS owns
    """
)
_UNPROTECTED = sa.text(
    """
    SELECT relname FROM pg_class
    WHERE oid = ANY (CAST(CAST(:tables AS text[]) AS regclass[])) AND NOT (relrowsecurity AND relforcerowsecurity)
    ORDER BY relname
    """
)


def verify_application_role(connection: Connection) -> None:
    """Raise Conflict unless row-level security binds us: the connected role is no superuser, has no BYPASSRLS and does
    not own the tables, and it is enabled and forced on every tenant's table. SQLite has none: nothing to check.
    """
    if connection.dialect.name != "postgresql":
        return
    tables = {"tables": [table.name for table in metadata.sorted_tables if "tenant_id" in table.c]}
    role = connection.execute(_WAYS_AROUND, tables).one()
    unprotected = connection.execute(_UNPROTECTED, tables).scalars().all()
    if role.bypasses or role.owns:
        why = "is, or can become, a superuser or a role with BYPASSRLS" if role.bypasses else "owns kgents' tables"
        raise Conflict(
            f"The database role {role.name!r} {why}, so row-level security would not hold tenants apart. Connect as a "
            "login role that is only a member of kgents_app (KGENTS_DATABASE_URL), and migrate as the owner "
            "(KGENTS_DATABASE_OWNER_URL).",
            code="database-role",
        )
    if unprotected:
        raise Conflict(
            f"Row-level security is not enabled and forced on {', '.join(unprotected)}, so tenants would not be held "
            "apart. As the owner, for each of them: ALTER TABLE ... ENABLE ROW LEVEL SECURITY; ALTER TABLE ... FORCE "
            "ROW LEVEL SECURITY;",
            code="database-unprotected",
        )
