"""Wrong keys are counted by address, and the count drains."""

from __future__ import annotations

import pytest

from kgents.clock import ManualClock
from kgents.tenants.attempts import WRONG_A_MINUTE, Attempts

HERE = "198.51.100.1"


@pytest.fixture
async def attempts(clock: ManualClock) -> Attempts:
    return Attempts(clock)


async def used_up(attempts: Attempts, source: str) -> None:
    """Fail as often as may be."""
    for _ in range(WRONG_A_MINUTE):
        assert await attempts.failed(source) is None


async def test_one_too_many_is_refused_and_says_when_to_come_back(attempts: Attempts) -> None:
    await used_up(attempts, HERE)
    refusal = await attempts.failed(HERE)
    assert refusal is not None
    assert (refusal.status, refusal.code, refusal.headers) == (429, "wrong-keys", {"Retry-After": "1"})
    assert await attempts.refusal(HERE) is not None


async def test_what_is_refused_does_not_count(attempts: Attempts, clock: ManualClock) -> None:
    await used_up(attempts, HERE)
    for _ in range(1000):
        await attempts.failed(HERE)
    clock.advance(60 / WRONG_A_MINUTE)
    assert await attempts.failed(HERE) is None


async def test_another_address_is_not_concerned(attempts: Attempts) -> None:
    await used_up(attempts, HERE)
    assert await attempts.refusal("198.51.100.2") is None


async def test_addresses_of_one_ipv6_network_are_one(attempts: Attempts) -> None:
    await used_up(attempts, "2001:db8:0:1::1")
    assert await attempts.refusal("2001:db8:0:1:ffff::2") is not None
    assert await attempts.refusal("2001:db8:0:2::1") is None


async def test_an_address_that_is_not_known_is_not_limited(attempts: Attempts) -> None:
    await used_up(attempts, "")
    assert await attempts.failed("") is None
    assert await attempts.refusal("") is None
