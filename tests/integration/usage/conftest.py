"""A ledger with tenants, and a meter that the test may break."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from kgents.meter.client import MeterClient
from kgents.store.engine import Scope, Store
from kgents.store.tables import tenants
from tests.contract.meter.process import MeterProcess
from tests.support.ports import free_port

TENANTS = ("ten_1", "ten_2")


@pytest.fixture
async def ledger(store: Store) -> Store:
    """A database with two tenants."""
    rows = [
        {"tenant_id": tenant, "name": tenant, "status": "active", "created_at": 0, "updated_at": 0}
        for tenant in TENANTS
    ]
    await store.write(Scope.system(), lambda connection: connection.execute(sa.insert(tenants), rows))
    return store


@pytest.fixture
def meter(tmp_path: Path) -> Iterator[MeterProcess]:
    """A meter of the test's own."""
    process = MeterProcess(tmp_path, free_port()).start()
    yield process
    process.stop()


@pytest.fixture
async def client(meter: MeterProcess) -> AsyncIterator[MeterClient]:
    """The product's client of that meter."""
    made = meter.client()
    yield made
    await made.aclose()
