"""What is known of agents is what they are now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kgents.agents.catalog import Catalog
from kgents.agents.model import Agent, AgentDefinition


class Reads:
    """A store from which an agent is read, at the version that it has when the read begins. `meanwhile` happens before
    the read ends.
    """

    def __init__(self) -> None:
        self.version = 1
        self.meanwhile: Callable[[], None] = lambda: None

    async def read(self, _scope: Any, _fn: Any) -> Agent:
        found = Agent("agt_1", "ten_1", "clerk", self.version, AgentDefinition("kgents:echo"), 0, 0)
        self.meanwhile()
        return found


async def test_an_agent_that_was_changed_while_it_was_read_is_not_kept() -> None:
    store = Reads()
    catalog = Catalog(store, lambda: True)  # type: ignore[arg-type]

    def change() -> None:
        store.version = 2
        catalog.forget("ten_1", ["agt_1", "clerk"])

    store.meanwhile = change
    await catalog.get("ten_1", "clerk")
    store.meanwhile = lambda: None
    assert (await catalog.get("ten_1", "clerk")).version == 2


async def test_an_agent_is_read_once() -> None:
    store = Reads()
    catalog = Catalog(store, lambda: True)  # type: ignore[arg-type]
    await catalog.get("ten_1", "clerk")
    store.version = 2
    assert (await catalog.get("ten_1", "clerk")).version == 1
