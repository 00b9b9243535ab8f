"""The pipeline of usage: a ledger, a bus and a meter, each of them real and the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from kgents.bus.nats import Bus
from kgents.clock import SystemClock
from kgents.config import Settings
from kgents.store.engine import Scope, Store
from kgents.store.tables import tenants
from kgents.telemetry.metrics import Metrics
from tests.support.nats import NatsServer
from tests.support.waiting import eventually

TENANT = "ten_1"


@pytest.fixture
async def ledger(store: Store) -> Store:
    """A database with a tenant."""
    row = {"tenant_id": TENANT, "name": "t", "status": "active", "created_at": 0, "updated_at": 0}
    await store.write(Scope.system(), lambda connection: connection.execute(sa.insert(tenants), row))
    return store


@pytest.fixture
async def make_bus(nats: NatsServer) -> AsyncIterator[Callable[[], Bus]]:
    """A function that makes a bus, which begins to connect."""
    made: list[Bus] = []
    settings = Settings(nats_url=nats.url, nats_user=nats.user, nats_password=SecretStr(nats.password))

    async def make() -> Bus:
        made.append(Bus(settings, SystemClock()))
        await made[-1].start()
        await eventually(lambda: made[-1].state.connected, what="the bus is connected")
        return made[-1]

    yield make
    for bus in made:
        await bus.close()


@pytest.fixture
async def bus(make_bus) -> Bus:
    """A bus that is connected."""
    return await make_bus()


@pytest.fixture
def metrics() -> Metrics:
    """Metrics of the test's own."""
    return Metrics("test")
