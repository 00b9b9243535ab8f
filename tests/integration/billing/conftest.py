"""A ledger with tenants, and a meter that the test may break."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from kgents.store.engine import Scope, Store
from kgents.store.tables import tenants

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
