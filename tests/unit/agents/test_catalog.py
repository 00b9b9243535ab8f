"""What is known of agents is what they are now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kgents.agents import catalog as module
from kgents.agents.catalog import Catalog
from kgents.agents.model import Agent, AgentDefinition
from kgents.store.changes import Change


class Reads:
    """A store from which an agent is read, at the version that it has when the read begins. `meanwhile` happens before
    the read ends.
    """

    def __init__(self) -> None:
        self.version = 1
        self.instructions = ""
        self.count = 0
        self.meanwhile: Callable[[], None] = lambda: None

    async def read(self, _scope: Any, _fn: Any) -> Agent:
        self.count += 1
        definition = AgentDefinition("kgents:echo", self.instructions)
        found = Agent("agt_1", "ten_1", "clerk", self.version, definition, 0, 0)
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


async def test_of_an_erased_tenant_nothing_is_kept() -> None:
    store = Reads()
    catalog = Catalog(store, lambda: True)  # type: ignore[arg-type]
    keys = [("ten_1", "agt_1"), ("ten_1", "clerk"), ("ten_2", "clerk")]
    for key in keys:
        await catalog.get(*key)
    catalog.apply(Change(1, "ten_1", "tenant", "ten_1"))
    read = []
    for key in keys:
        before = store.count
        await catalog.get(*key)
        read.append(store.count > before)
    assert read == [True, True, False]


@pytest.fixture
def store_of_large(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Three of its agents have room at a time."""
    monkeypatch.setattr(module, "MAX_BYTES", 10_000)
    store = Reads()
    store.instructions = "x" * 3_000
    return store


async def test_of_large_agents_only_the_last_that_were_asked_for_are_kept(store_of_large: Reads) -> None:
    store = store_of_large
    catalog = Catalog(store, lambda: True)  # type: ignore[arg-type]
    for name in ("a", "b", "c", "d"):
        await catalog.get("ten_1", name)
    read = store.count
    await catalog.get("ten_1", "d")
    await catalog.get("ten_1", "a")
    assert store.count == read + 1


async def test_an_agent_that_is_forgotten_makes_room(store_of_large: Reads) -> None:
    store = store_of_large
    catalog = Catalog(store, lambda: True)  # type: ignore[arg-type]
    for name in ("a", "b", "c", "d"):
        await catalog.get("ten_1", name)
        catalog.forget("ten_1", [name])
    await catalog.get("ten_1", "e")
    read = store.count
    await catalog.get("ten_1", "f")
    await catalog.get("ten_1", "e")
    assert store.count == read + 1
