"""`kgents key bootstrap`: the first key of an installation, which no request can make, since each needs a key."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import Connection

from kgents import config
from kgents.clock import SystemClock, to_rfc3339
from kgents.config import Settings
from kgents.errors import Unprocessable
from kgents.store.engine import Scope, open_store
from kgents.store.migrate import check_current
from kgents.tenants import keys
from kgents.tenants.model import OWNER, PLATFORM_ADMIN, SYSTEM, IssuedKey
from kgents.tenants.service import KeyService, TenantService


def run(name: str) -> dict[str, Any]:
    """Make a platform administrator's key with KGENTS_DATABASE_URL and KGENTS_PEPPER; the key with its token.

    Raises KgentsError when the database can't be used or is not migrated.
    """
    issued = asyncio.run(_issue(config.load(), name))
    return {
        "object": "api_key",
        "id": issued.key.key_id,
        "tenant_id": issued.key.tenant_id,
        "name": issued.key.name,
        "scopes": sorted(issued.key.scopes),
        "created_at": to_rfc3339(issued.key.created_at),
        "token": issued.token,
    }


def peppers(settings: Settings) -> keys.Peppers:
    """The peppers of API keys. Raises Unprocessable, without their values, when they can't be used."""
    try:
        return keys.parse_peppers(settings.pepper.get_secret_value())
    except ValueError as error:
        raise Unprocessable(f"The setting KGENTS_PEPPER can't be used: {error}.", code="setting") from None


async def _issue(settings: Settings, name: str) -> IssuedKey:
    clock = SystemClock()
    service = KeyService(clock, peppers(settings))
    administrator = OWNER | {PLATFORM_ADMIN}
    store = open_store(settings.database_url)

    def unit(connection: Connection) -> IssuedKey:
        platform = TenantService(clock).ensure_platform(connection, SYSTEM).tenant_id
        return service.create(
            connection, platform, name=name, scopes=administrator, granting=administrator, actor=SYSTEM
        )

    try:
        await check_current(store)
        return await store.write(Scope.system(), unit)
    finally:
        await store.close()
