"""Places, turns and refusals, by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from kgents.api.admission import FEW, WINDOW, Admission, Place
from kgents.config import Settings
from kgents.errors import Unavailable
from kgents.telemetry.metrics import Metrics
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio


def admission_of(**settings: float) -> Admission:
    return Admission(Settings.model_validate(settings), Metrics("api"))


def taken(admission: Admission, tenant: str, count: int) -> list[Place]:
    places = [admission.enter(tenant) for _ in range(count)]
    return [place for place in places if place is not None]


@pytest.fixture
async def queue() -> AsyncIterator[list[asyncio.Task[Place]]]:
    """Tasks that wait for a place, ended with the test."""
    tasks: list[asyncio.Task[Place]] = []
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def waiting(admission: Admission, tenant: str, count: int, queue: list[asyncio.Task[Place]]) -> None:
    before = admission.waiting
    queue += [asyncio.create_task(admission.wait(tenant)) for _ in range(count)]
    await eventually(lambda: admission.waiting == before + count)


async def test_there_are_as_many_places_as_the_limit_says() -> None:
    admission = admission_of(max_at_work=4)
    assert len(taken(admission, "noisy", 10)) == 4


async def test_a_place_that_is_left_goes_to_the_first_who_waits(queue: list[asyncio.Task[Place]]) -> None:
    admission = admission_of(max_at_work=1)
    [place] = taken(admission, "noisy", 1)
    await waiting(admission, "noisy", 2, queue)
    place.leave()
    await eventually(queue[0].done)
    assert not queue[1].done()


async def test_a_place_is_left_once(queue: list[asyncio.Task[Place]]) -> None:
    admission = admission_of(max_at_work=1)
    [place] = taken(admission, "noisy", 1)
    place.leave()
    place.leave()
    assert admission.at_work == 0


async def test_a_tenant_with_nothing_under_way_enters_past_those_who_wait(queue: list[asyncio.Task[Place]]) -> None:
    admission = admission_of(max_at_work=2)
    taken(admission, "noisy", 2)
    await waiting(admission, "noisy", 50, queue)
    assert admission.enter("quiet") is not None


async def test_only_so_many_enter_past_those_who_wait(queue: list[asyncio.Task[Place]]) -> None:
    admission = admission_of(max_at_work=2)
    taken(admission, "noisy", 2)
    await waiting(admission, "noisy", 1, queue)
    entered = [tenant for tenant in "abcdef" if admission.enter(tenant) is not None]
    assert len(entered) == 2


async def test_tenants_who_wait_take_turns(queue: list[asyncio.Task[Place]]) -> None:
    admission = admission_of(max_at_work=1)
    [place] = taken(admission, "noisy", 1)
    await waiting(admission, "noisy", 20, queue)
    quiet: list[asyncio.Task[Place]] = []
    await waiting(admission, "quiet", 1, quiet)
    queue += quiet
    place.leave()
    await eventually(queue[0].done)
    queue[0].result().leave()
    await eventually(quiet[0].done)


async def test_a_full_queue_is_full_for_who_filled_it_only(queue: list[asyncio.Task[Place]]) -> None:
    admission = admission_of(max_at_work=1, max_waiting=10)
    taken(admission, "noisy", 1)
    await waiting(admission, "noisy", 10, queue)
    assert (admission.full("noisy"), admission.full("quiet")) == (True, False)


async def test_nobody_joins_a_queue_of_twice_what_may_wait(queue: list[asyncio.Task[Place]]) -> None:
    admission = admission_of(max_at_work=1, max_waiting=5)
    taken(admission, "noisy", 1)
    await waiting(admission, "noisy", 10, queue)
    with pytest.raises(Unavailable, match="not begun"):
        await admission.wait("quiet")


async def test_who_waited_for_too_long_is_refused(queue: list[asyncio.Task[Place]]) -> None:
    admission = admission_of(max_at_work=1, max_wait=0.05)
    taken(admission, "noisy", 1)
    queue.append(asyncio.create_task(admission.wait("noisy")))
    with pytest.raises(Unavailable) as refusal:
        await asyncio.wait_for(queue[0], 5)
    assert (refusal.value.code, refusal.value.headers) == ("overloaded", {"Retry-After": "1"})


async def test_a_stand_shorter_than_the_longest_wait_refuses_nobody(queue: list[asyncio.Task[Place]]) -> None:
    admission = admission_of(max_at_work=1, max_waiting=200, max_wait=30)
    [place] = taken(admission, "noisy", 1)
    await waiting(admission, "noisy", 150, queue)
    await eventually(lambda: admission._looks > 2 * WINDOW)
    assert not admission.full("noisy")
    place.leave()
    await eventually(queue[0].done)


async def test_where_nothing_is_served_for_the_longest_wait_few_may_wait(queue: list[asyncio.Task[Place]]) -> None:
    admission = admission_of(max_at_work=1, max_waiting=200, max_wait=0.6)
    taken(admission, "noisy", 1)
    while admission.allowed == 200:  # who waits is refused in the end; the next one waits
        queue.append(asyncio.create_task(admission.wait("noisy")))
        await asyncio.wait(queue[-1:], timeout=5)
    assert admission.allowed == FEW


async def test_who_gives_up_waiting_costs_no_place(queue: list[asyncio.Task[Place]]) -> None:
    admission = admission_of(max_at_work=1)
    [place] = taken(admission, "noisy", 1)
    await waiting(admission, "noisy", 2, queue)
    queue[0].cancel()
    place.leave()
    await eventually(queue[1].done)


async def test_a_place_given_to_who_is_just_giving_up_goes_to_the_next(queue: list[asyncio.Task[Place]]) -> None:
    admission = admission_of(max_at_work=1)
    [place] = taken(admission, "noisy", 1)
    await waiting(admission, "noisy", 2, queue)
    place.leave()
    queue[0].cancel()
    await eventually(queue[1].done)
    assert (await queue[1]) is not None


async def test_nothing_is_kept_of_tenants_who_are_done() -> None:
    admission = admission_of()
    for tenant in range(100):
        for place in taken(admission, str(tenant), 1):
            place.leave()
    assert not admission._flows


async def test_the_limit_falls_to_no_less_than_its_least_while_the_loop_lags(queue: list[asyncio.Task[Place]]) -> None:
    admission = admission_of()
    for _ in range(100):
        admission._adapt(0.1)
    assert admission.limit == 16


async def test_the_limit_rises_to_no_more_than_its_most_while_the_loop_is_quick() -> None:
    admission = admission_of(max_at_work=40)
    for _ in range(100):
        admission._adapt(0.0)
    assert admission.limit == 40
