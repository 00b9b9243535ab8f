"""Agents as the hot path needs them: looked up by name or id without asking the database each time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from kgents.agents import service
from kgents.agents.model import Agent
from kgents.agents.repository import dump_definition
from kgents.store.changes import Change
from kgents.store.engine import Scope, Store

MAX_AGENTS = 50_000
MAX_BYTES = 32 * 1024 * 1024
"""Of all definitions as JSON; in memory they take up to four times as much. One may be as large as a request's body."""


class Catalog:
    """A bounded cache of agents. An entry is used only while `fresh()` says that this process hears of changes."""

    def __init__(self, store: Store, fresh: Callable[[], bool]) -> None:
        self._store = store
        self._fresh = fresh
        self._agents: OrderedDict[tuple[str, str], tuple[Agent, int]] = OrderedDict()  # each with its size
        self._by_tenant: dict[str, set[str]] = {}  # ids and names
        self._bytes = 0
        self._changes = 0

    async def get(self, tenant_id: str, agent: str) -> Agent:
        """The tenant's agent, by id or name, at its latest version. Raises NotFound, Unavailable."""
        key = (tenant_id, agent)
        if self._fresh():
            found = self._agents.get(key)
            if found is not None:
                self._agents.move_to_end(key)
                return found[0]
        changes = self._changes
        read = await self._store.read(
            Scope.tenant(tenant_id), lambda connection: service.get_agent(connection, tenant_id, agent)
        )
        if changes == self._changes:  # else it may have been changed after it was read
            self._keep(key, read)
        return read

    def _keep(self, key: tuple[str, str], agent: Agent) -> None:
        self._drop(key)
        size = len(dump_definition(agent.definition))
        self._agents[key] = agent, size
        self._by_tenant.setdefault(key[0], set()).add(key[1])
        self._bytes += size
        while len(self._agents) > MAX_AGENTS or self._bytes > MAX_BYTES:
            self._drop(next(iter(self._agents)))

    def _drop(self, key: tuple[str, str]) -> None:
        if key not in self._agents:
            return
        tenant_id, ref = key
        self._bytes -= self._agents.pop(key)[1]
        self._by_tenant[tenant_id].remove(ref)
        if not self._by_tenant[tenant_id]:
            del self._by_tenant[tenant_id]

    def clear(self) -> None:
        """Forget all."""
        self._changes += 1
        self._agents.clear()
        self._by_tenant.clear()
        self._bytes = 0

    def apply(self, change: Change) -> None:
        """Forget an agent that was changed; of a tenant all, which may have been erased."""
        known = self._by_tenant.get(change.tenant_id, ())
        self.forget(change.tenant_id, tuple(known) if change.kind == "tenant" else [change.ref])

    def forget(self, tenant_id: str, refs: Iterable[str]) -> None:
        """Forget a tenant's agents by their ids and names: who changes one in this process sees the change at once."""
        self._changes += 1
        for ref in refs:
            self._drop((tenant_id, ref))
