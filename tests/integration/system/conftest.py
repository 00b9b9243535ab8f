"""A whole kgents of the test's own, on each database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import Database
from tests.support.up import UNMEASURED, Up


@pytest.fixture
def system(database: Database, tmp_path: Path) -> Iterator[Up]:
    """A running `kgents up` that the test may break as it likes."""
    environment = dict(UNMEASURED)
    if database.dialect == "postgresql":
        environment |= {"KGENTS_DATABASE_URL": database.url, "KGENTS_DATABASE_OWNER_URL": database.owner_url}
    up = Up(tmp_path / "data", environment=environment).start()
    yield up
    up.stop()
