"""What is looked at while load is applied."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from kgents.load import run, target
from kgents.load.resources import Pages
from kgents.load.target import Target
from tests.support.loads import health

AT = Target("http://t", "key", Pages([]))


@pytest.fixture
def tells(monkeypatch):
    """Makes the target's health page tell something."""

    def tell(page):
        async def look(url):
            return page

        monkeypatch.setattr(target, "look_at_health", look)

    return tell


async def unwell():
    """What was seen in a moment."""
    found = set()
    with suppress(TimeoutError):
        await asyncio.wait_for(run._health(AT, found), 0.05)
    return found


async def test_while_all_is_connected_nothing_is_unwell(tells):
    tells(health())

    assert await unwell() == set()


@pytest.mark.parametrize("status", ["degraded", "disconnected", "not_configured"])
async def test_an_integration_that_is_not_connected_for_a_moment_of_a_step_is_seen(tells, status):
    tells(health(nats=status))

    assert await unwell() == {("nats", status)}


async def test_an_integration_that_the_page_leaves_out_for_a_moment_is_not_taken_for_connected(tells):
    page = health()
    del page["components"]["meter"]
    tells(page)

    assert await unwell() == {("meter", "unknown")}


async def test_a_page_that_is_away_is_one_reason(tells):
    tells({"status": "unreachable", "components": {}})

    assert await unwell() == {("the health page", "unreachable")}
