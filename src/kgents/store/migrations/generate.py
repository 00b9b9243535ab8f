"""Write the first revision's DDL anew from tables.py, for as long as no version with it was released:

    uv run python -m kgents.store.migrations.generate && uv run ruff format src/kgents/store/migrations

A new table with a tenant_id is to be added to the revision's TENANTS_TABLES by hand; a test finds one that is missing.
Once released, a revision is frozen, and a change of tables.py comes with a revision of its own, written by hand.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext

from kgents.store.tables import metadata

_REVISION = Path(__file__).parent / "versions" / "r0001_tables.py"
_HEAD = "def _create_tables() -> None:\n"


def main() -> None:
    """Replace the body of `_create_tables`, the last function of the revision."""
    with sa.create_engine("sqlite://").connect() as connection:
        context = MigrationContext.configure(connection, opts={"target_metadata": metadata})
        operations = produce_migrations(context, metadata).upgrade_ops
        assert operations is not None
        lines = render_python_code(operations).splitlines()
    body = "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("#"))
    kept, _, _ = _REVISION.read_text().partition(_HEAD)
    _REVISION.write_text(f"{kept}{_HEAD}    {body.strip()}\n")


if __name__ == "__main__":
    main()
