"""Erasing a tenant: everything that persons wrote, from every store, for good.

Each step may be cut off and is done again by the next try: the tenant stands in two lists of erasures before anything
is deleted, its rows go in pages, and the tenant's own row goes last.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from nats.aio.client import Client
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from kgents.agents import runs
from kgents.agents.ledger_ops import Finish
from kgents.bus import erased
from kgents.bus.stored_events import erase_events, runs_with_events
from kgents.clock import Clock
from kgents.errors import Conflict
from kgents.privacy import repository
from kgents.privacy.repository import ERASE, ERASED, ERASED_ROWS
from kgents.store import changes
from kgents.store.engine import Scope, Store
from kgents.tenants.model import PLATFORM
from kgents.tenants.service import no_tenant

PAGE = 200  # runs, or rows, that are deleted in one transaction
CHUNK = 500  # runs that are looked up at once
SETTLE = 3.0  # seconds after which no process still does what it began for a key that has ended, or for a run
PATIENCE = 120.0  # seconds for runs to end once they are asked to
TRIES = 5

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """A tenant on the lists. `begun` and `done` are microseconds; `done` is None until an erasure came to its end,
    `begun` of the bus where the database does not know of it.
    """

    tenant_id: str
    begun: int
    done: int | None


class Erasure:
    """Erases tenants. `store` is the database as its owner, which may delete what the application may not."""

    def __init__(
        self,
        store: Store,
        bus: Client,
        clock: Clock,
        *,
        source: str,
        operator: str,
        compact: Callable[[], bool],
        tell: Tell,
        settle: float = SETTLE,
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._source = source
        self._operator = operator
        self._compact = compact
        self._tell = tell
        self._settle = settle

    async def name(self, tenant_id: str) -> str | None:
        """The name of a tenant that is there. Raises NotFound for one that is neither there nor on the lists, and
        Conflict for the platform's own.
        """
        if tenant_id == PLATFORM:
            raise Conflict(
                f"The tenant {PLATFORM} holds the platform's administrators and can't be erased.",
                code="tenant-reserved",
            )
        found = await self._store.read(Scope.system(), lambda c: repository.name_of(c, tenant_id))
        if found is None and tenant_id not in {entry.tenant_id for entry in await self.entries()}:
            raise no_tenant(tenant_id)
        return found

    async def entries(self) -> list[Entry]:
        """The erasures that the database or the bus knows of, oldest first. Raises Unavailable."""
        begun, done = await erased.remembered(self._bus), {}
        for action, tenant_id, at in await self._store.read(Scope.system(), repository.recorded):
            if action == ERASE:
                begun[tenant_id] = min(at, begun.get(tenant_id, at))
            else:
                done[tenant_id] = at
        return [Entry(tenant, at, done.get(tenant)) for tenant, at in sorted(begun.items(), key=lambda item: item[1])]

    async def erase(self, tenant_id: str) -> dict[str, int]:
        """Erase a tenant; answers how many rows and messages there were, by their kind.

        Raises NotFound, Conflict where its runs do not end, Unavailable; then run it again.
        """
        await self.name(tenant_id)
        await self._begin(tenant_id)
        await self._end_runs(tenant_id)
        counts: Counter[str] = Counter()
        await self._erase_events(tenant_id, counts)
        await self._erase_rows(tenant_id, counts)
        await self._erase_events(tenant_id, counts)
        self._tell("rewriting the database's file")
        await asyncio.to_thread(self._compact)
        await self._done(tenant_id, counts)
        return {kind: count for kind, count in sorted(counts.items()) if count}

    async def _begin(self, tenant_id: str) -> None:
        now = self._clock.now()
        known = await erased.remembered(self._bus)
        if tenant_id not in known:
            await erased.remember(self._bus, tenant_id, now)

        def unit(connection: Connection) -> None:
            if (ERASE, tenant_id) not in {(action, tenant) for action, tenant, _ in repository.recorded(connection)}:
                repository.record(connection, ERASE, tenant_id, self._operator, {}, now)
            repository.suspend(connection, tenant_id, now)
            changes.announce(connection, tenant_id, "tenant", tenant_id, now)

        await self._store.write(Scope.system(), unit)
        self._tell("suspended: its API keys are refused")

    async def _end_runs(self, tenant_id: str) -> None:
        """Cancel what is under way, and wait until nothing was for a while."""
        clock = self._clock
        deadline, quiet = clock.monotonic() + PATIENCE, clock.monotonic() + self._settle
        while clock.monotonic() < quiet:
            left = await self._store.write(Scope.system(), lambda c: self._cancel(c, tenant_id))
            if left:
                self._tell(f"waiting for {left} runs that were cancelled")
                quiet = clock.monotonic() + self._settle
            if clock.monotonic() > deadline:
                raise Conflict(
                    f"{left} runs of the tenant {tenant_id} have not ended, though they were cancelled. The tenant is "
                    "suspended and nothing was erased yet. See that API and workers run, and run it again.",
                    code="runs-under-way",
                )
            await asyncio.sleep(min(0.5, self._settle / 4))

    def _cancel(self, connection: Connection, tenant_id: str) -> int:
        """Ask for the end of the tenant's runs; those that nobody carries out end at once. Answers how many others."""
        now = self._clock.now()
        left = 0
        for run_id, status, owner in repository.unfinished(connection, tenant_id, PAGE):
            run = runs.request_cancel(connection, tenant_id, run_id, now, source=self._source)
            if status == "running" and not runs.is_present(connection, owner or ""):
                runs.end(connection, run, Finish("cancelled"), now, source=self._source)
            left += status == "running"
        return left

    async def _erase_events(self, tenant_id: str, counts: Counter[str]) -> None:
        async for found in runs_with_events(self._bus):
            for start in range(0, len(found), CHUNK):
                owned = partial(repository.owned_runs, tenant_id=tenant_id, run_ids=found[start : start + CHUNK])
                mine = await self._store.read(Scope.system(), owned)
                counts["run_events"] += await erase_events(self._bus, mine)
        self._tell(f"erased {counts['run_events']} messages of run events on the bus")

    async def _erase_rows(self, tenant_id: str, counts: Counter[str]) -> None:
        while more := await self._store.write(Scope.system(), lambda c: repository.erase_runs(c, tenant_id, PAGE)):
            counts.update(more)
            if not more["runs"]:
                break
            self._tell(f"erased {counts['runs']} runs, {counts['messages']} messages")
        for table, key in ERASED_ROWS:
            name = str(table.name)  # SQLAlchemy's is no plain text
            some = partial(repository.erase_some, table=table, key=key, tenant_id=tenant_id, limit=PAGE)
            while deleted := await self._store.write(Scope.system(), some):
                counts[name] += deleted
            self._tell(f"erased {counts[name]} {name}")
        await self._blank_audit(tenant_id, counts)
        await self._finish(tenant_id, counts)

    async def _blank_audit(self, tenant_id: str, counts: Counter[str]) -> None:
        after = ""
        while True:
            some = partial(repository.blank_audit, tenant_id=tenant_id, after=after, limit=PAGE)
            after, changed = await self._store.write(Scope.system(), some)
            counts["audit_log_blanked"] += changed
            if not after:
                break
        self._tell(f"blanked {counts['audit_log_blanked']} entries of the audit log")

    async def _finish(self, tenant_id: str, counts: Counter[str]) -> None:
        now = self._clock.now()

        def unit(connection: Connection) -> dict[str, int]:
            deleted = repository.finish(connection, tenant_id, now)
            changes.announce(connection, tenant_id, "tenant", tenant_id, now)
            return deleted

        for _ in range(TRIES):
            try:
                counts.update(await self._store.write(Scope.system(), unit))
            except IntegrityError:
                await asyncio.sleep(self._settle)
            else:
                self._tell("erased its API keys and the tenant itself")
                return
        raise Conflict(
            f"The tenant {tenant_id} still gets new rows, though it is suspended. Run it again.", code="tenant-in-use"
        )

    async def _done(self, tenant_id: str, counts: Counter[str]) -> None:
        now = self._clock.now()
        total = {kind: count for kind, count in sorted(counts.items()) if count}

        def unit(connection: Connection) -> None:
            before = {(action, tenant) for action, tenant, _ in repository.recorded(connection)}
            if total or (ERASED, tenant_id) not in before:
                repository.record(connection, ERASED, tenant_id, self._operator, {"counts": total}, now)

        await self._store.write(Scope.system(), unit)
