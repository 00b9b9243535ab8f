"""Looking up names for tools: what one tenant's name servers hold up."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any
from weakref import WeakValueDictionary

import pytest

from kgents.agents.tools import egress
from kgents.agents.tools.egress import resolver_for
from tests.support.waiting import eventually

MANY = 100  # more than there are threads
ADDRESS = ["93.184.216.34"]


class Names:
    """A resolver of a system that does not come back for hosts named `stall...` until `answering` is set."""

    def __init__(self) -> None:
        self.answering = threading.Event()
        self.asked: list[str] = []

    def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append(host)
        if host.startswith("stall"):
            self.answering.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ADDRESS[0], port))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    found = Names()
    monkeypatch.setattr(egress, "_turns", WeakValueDictionary())
    monkeypatch.setattr(egress.socket, "getaddrinfo", found.getaddrinfo)
    yield found
    found.answering.set()


def stalled(tenant_id: str) -> list[asyncio.Task[list[str]]]:
    """Lookups of many runs of a tenant."""
    return [asyncio.create_task(resolver_for(tenant_id)(f"stall{number}.example", 443)) for number in range(MANY)]


async def test_lookups_that_stall_hold_up_no_other_tenant(names: Names) -> None:
    lookups = stalled("ten_1")
    await eventually(lambda: names.asked)
    assert await resolver_for("ten_2")("other.example", 443) == ADDRESS
    names.answering.set()
    assert await asyncio.gather(*lookups) == [ADDRESS] * MANY


async def test_a_lookup_that_was_given_up_is_under_way_until_its_thread_is_free(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "_RESOLVE_SECONDS", 0.2)
    for _ in range(2):
        lookups = stalled("ten_1")
        assert {type(result) for result in await asyncio.gather(*lookups, return_exceptions=True)} == {TimeoutError}
    assert 0 < len(names.asked) < 10
    names.answering.set()
    monkeypatch.setattr(egress, "_RESOLVE_SECONDS", 10.0)
    assert await resolver_for("ten_1")("own.example", 443) == ADDRESS


async def test_a_lookup_that_fails_leaves_its_place(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror

    with monkeypatch.context() as patch:
        patch.setattr(egress.socket, "getaddrinfo", unknown)
        resolve = resolver_for("ten_1")
        results = await asyncio.gather(*(resolve("unknown.example", 443) for _ in range(MANY)), return_exceptions=True)
    assert {type(result) for result in results} == {socket.gaierror}
    assert await resolve("known.example", 443) == ADDRESS
