"""Slots, and whose they are."""

from __future__ import annotations

import asyncio

import pytest

from kgents.workers.shares import Shares


def holding(slots: int, **held: int) -> Shares:
    shares = Shares(slots)
    for tenant, count in held.items():
        for _ in range(count):
            shares.take(tenant)
    return shares


@pytest.mark.parametrize(("mine", "full"), [(0, False), (5, False), (6, True), (7, True)])
def test_a_tenant_alone_may_hold_half(mine: int, full: bool) -> None:
    assert holding(12, me=mine).full("me") is full


@pytest.mark.parametrize(("mine", "full"), [(0, False), (3, False), (4, True)])
def test_beside_another_a_tenant_may_hold_a_third(mine: int, full: bool) -> None:
    assert holding(12, me=mine, other=1).full("me") is full


def test_where_there_are_more_tenants_than_slots_each_may_hold_one() -> None:
    shares = holding(3, a=1, b=1, c=1)
    assert not shares.full("d")
    assert shares.full("a")


def test_those_who_are_full_are_told() -> None:
    assert holding(12, much=4, little=1).those_full() == ["much"]


def test_a_slot_that_is_left_counts_no_more() -> None:
    shares = holding(2, me=1)
    shares.leave("me")
    assert not shares.full("me")
    assert shares.those_full() == []


async def waiting(shares: Shares, *tenants: str) -> list[asyncio.Task[None]]:
    """Tasks that wait for a slot, each for a tenant."""
    tasks = [asyncio.create_task(shares.left(tenant, 60)) for tenant in tenants]
    await asyncio.sleep(0)
    return tasks


@pytest.mark.anyio
@pytest.mark.parametrize(("left", "heard"), [("a", 1), ("b", 0), ("c", 0)])
async def test_of_a_slot_hears_who_waits_for_that_tenant_or_has_waited_longest(left: str, heard: int) -> None:
    shares = holding(4, a=1, b=1, c=1)
    tasks = await waiting(shares, "b", "a", "a")
    shares.leave(left)
    done, others = await asyncio.wait(tasks, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert [task in done for task in tasks] == [number == heard for number in range(3)]
    for task in others:
        task.cancel()


@pytest.mark.anyio
async def test_who_waits_for_a_slot_does_so_for_a_time() -> None:
    await asyncio.wait_for(holding(2, me=1).left("me", 0.01), 5)
