"""`kgents tenant export`, `erase` and `erased`: the operator's work on everything that a tenant has."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from nats.aio.client import Client
from pydantic import SecretStr

from kgents import config
from kgents.bus import admin
from kgents.cli import connections
from kgents.cli.client import Refused
from kgents.cli.explained import explained
from kgents.cli.output import note
from kgents.clock import SystemClock, to_rfc3339
from kgents.config import Settings
from kgents.errors import Conflict
from kgents.privacy.export import Exported, export
from kgents.privacy.service import Entry, Erasure
from kgents.store.compact import compact
from kgents.store.engine import Scope, Store, open_store, parse_url
from kgents.store.migrate import HEAD, current

T = TypeVar("T")
Confirm = Callable[[str], None]


def export_to(tenant_id: str, target: Path) -> Exported:
    """Write everything that a tenant has. Raises KgentsError."""
    settings = _settings()

    async def work() -> Exported:
        async with _opened(settings, settings.database_url) as (store, bus):
            return await export(store, bus, tenant_id, target, operator=_operator(), clock=SystemClock(), tell=note)

    return _run(work)


def erase(tenant_id: str, confirm: Confirm) -> dict[str, int]:
    """Erase a tenant once `confirm` has accepted its name (by raising nothing); the counts. Raises KgentsError."""

    name = _erasing(lambda erasure: erasure.name(tenant_id))
    if name is not None:
        confirm(name)
    return _erasing(lambda erasure: erasure.erase(tenant_id))


def erase_again() -> dict[str, dict[str, int]]:
    """Erase every tenant that was erased before anew; the counts of each. Raises KgentsError."""

    async def work(erasure: Erasure) -> dict[str, dict[str, int]]:
        found = {}
        for entry in await erasure.entries():
            note(f"{entry.tenant_id}:")
            found[entry.tenant_id] = await erasure.erase(entry.tenant_id)
        return found

    return _erasing(work)


def erased() -> list[dict[str, Any]]:
    """The tenants whose erasure was begun, oldest first. Raises KgentsError."""
    return [_shown(entry) for entry in _erasing(Erasure.entries)]


def _shown(entry: Entry) -> dict[str, Any]:
    done = None if entry.done is None else to_rfc3339(entry.done)
    return {"tenant": entry.tenant_id, "begun_at": to_rfc3339(entry.begun), "done_at": done}


def _erasing(work: Callable[[Erasure], Awaitable[T]]) -> T:
    settings = _settings()
    owner_url = settings.database_owner_url
    if parse_url(settings.database_url).get_backend_name() == "sqlite":
        owner_url = settings.database_url
    if not owner_url:
        raise Refused(
            "Set KGENTS_DATABASE_OWNER_URL, as for kgents migrate: only the tables' owner may change the audit log."
        )

    async def run() -> T:
        async with _opened(settings, owner_url) as (store, bus):
            erasure = Erasure(
                store,
                bus,
                SystemClock(),
                source=settings.meter_source,
                operator=_operator(),
                compact=partial(compact, owner_url),
                tell=note,
            )
            return await work(erasure)

    return _run(run)


def _run(work: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await work()

    with explained():
        return asyncio.run(main())


@asynccontextmanager
async def _opened(settings: Settings, url: str) -> AsyncIterator[tuple[Store, Client]]:
    store = open_store(url)
    try:
        found = await store.read(Scope.system(), current)
        if found != HEAD:  # another version may keep texts where this one does not look
            raise Conflict(
                f"The database is at revision {found!r}, and this version of kgents needs {HEAD!r}. Use the kgents "
                "that runs on it, or bring it to this version: kgents migrate",
                code="database-revision",
            )
        async with admin.connected(settings) as bus:
            yield store, bus
    finally:
        await store.close()


def _operator() -> str:
    """Who runs this, for the audit log."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _settings() -> Settings:
    """The settings of the installation: those of the environment and the folder of secrets where they name database and
    bus, or those of the kgents up on the data folder, with the owner's database from the environment.
    """
    given = config.load()
    if {"database_url", "nats_url"} <= given.model_fields_set:
        return given
    folder = Path(os.environ.get("KGENTS_DATA_DIR", "data"))
    instead = (
        "Set KGENTS_DATA_DIR to the data folder of a kgents up, or KGENTS_DATABASE_URL and KGENTS_NATS_URL to an "
        "installation's."
    )
    kept = connections.read(folder / "connections.json", "database_url", instead=instead)
    bus = connections.read(folder / "nats" / "endpoint.json", "port", "user", "password", instead=instead)
    return given.model_copy(
        update={
            "database_url": kept["database_url"],
            "nats_url": f"nats://127.0.0.1:{bus['port']}",
            "nats_user": bus["user"],
            "nats_password": SecretStr(bus["password"]),
        }
    )
