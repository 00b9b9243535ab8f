"""A stream looks at its key again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kgents.agents.events import Channel, RunEvent
from kgents.api import follow
from kgents.clock import ManualClock
from kgents.errors import Unauthenticated, Unavailable

DELTA = RunEvent(1, "text.delta", {"text": "x"})


def call_of(clock: ManualClock, error: Exception) -> Any:
    """A request whose key is refused with `error` when it is looked at again."""

    async def authenticate() -> None:
        raise error

    return SimpleNamespace(services=SimpleNamespace(clock=clock), authenticate=authenticate)


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Channel:
    """One that has no event, and a ping at once."""
    monkeypatch.setattr(follow, "PING_SECONDS", 0.0)
    return Channel()


async def test_a_stream_without_events_ends_with_its_key_at_a_ping(clock: ManualClock, channel: Channel) -> None:
    events = follow.live(call_of(clock, Unauthenticated("It was revoked.")), channel)
    assert await anext(events) is None
    clock.advance(follow.LOOK_SECONDS)

    with pytest.raises(Unauthenticated):
        await anext(events)

    assert channel.closed


async def test_an_event_that_comes_after_the_keys_end_is_not_given(clock: ManualClock, channel: Channel) -> None:
    events = follow.live(call_of(clock, Unauthenticated("It was revoked.")), channel)
    assert await anext(events) is None
    clock.advance(follow.LOOK_SECONDS)
    channel.put(DELTA)

    with pytest.raises(Unauthenticated):
        await anext(events)


async def test_a_stream_goes_on_while_nobody_can_say_whether_its_key_is_good(
    clock: ManualClock, channel: Channel
) -> None:
    events = follow.live(call_of(clock, Unavailable("The database is away.")), channel)
    assert await anext(events) is None
    clock.advance(follow.LOOK_SECONDS)
    channel.put(DELTA)

    assert await anext(events) == DELTA
    await events.aclose()
