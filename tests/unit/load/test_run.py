"""What is looked at while load is applied."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from unittest.mock import Mock

import pytest

from kgents.load import run, target
from kgents.load.measured import Sample, Samples
from kgents.load.profiles import Name, profile
from kgents.load.resources import Pages
from kgents.load.target import Target
from tests.support.loads import health

AT = Target("http://t", "key", Pages([]))


class Fast:
    """A load that the API answers at once."""

    async def apply(self, step, profile, counts):
        samples = Samples()
        samples.add(Sample("chat", 0.0, 0.0, 0.001, 200))
        return samples


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


async def searched():
    """The steps of a search in which each answer comes at once."""
    plan = run.Plan(profile(Name.STRESS), 100.0, 1, "kgents loadtest")
    return [step async for step in run._steps(plan, AT, Fast(), Mock())]


async def test_a_rate_with_which_the_workers_keep_up_is_met(tells):
    tells(health())

    assert all(step["met"] and step["backlog"] == 0 for step in await searched())


@pytest.mark.parametrize("left", [7, None])
async def test_a_rate_at_which_the_workers_fall_behind_is_not_met(tells, monkeypatch, left):
    settled = run.settled
    monkeypatch.setattr(run, "settled", lambda at, within=0.0: settled(at, 0.0))  # nobody waits in a test
    page = health()
    page["components"]["nats"]["backlog"] = left
    tells(page)

    found = await searched()

    assert found
    assert not any(step["met"] for step in found)
    assert {step["backlog"] for step in found} == {left}
