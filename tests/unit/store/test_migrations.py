"""The migrations and what the code says of them agree."""

from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from kgents.store import migrate
from kgents.store.migrations.versions import r0001_tables
from kgents.store.tables import metadata


@pytest.fixture
def scripts():
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    return ScriptDirectory.from_config(config)


def test_head_is_the_latest_revision(scripts):
    assert scripts.get_current_head() == migrate.HEAD


def test_revisions_sort_in_their_order(scripts):
    revisions = [script.revision for script in scripts.walk_revisions("base", "heads")]
    assert revisions == sorted(revisions, reverse=True)


def test_every_table_but_processes_is_a_tenants():
    unowned = {table.name for table in metadata.sorted_tables if "tenant_id" not in table.c}
    assert unowned == {"processes", "schema_support"}


def test_the_first_revision_secures_every_tenants_table():
    owned = {table.name for table in metadata.sorted_tables if "tenant_id" in table.c}
    assert set(r0001_tables.TENANTS_TABLES) == owned
