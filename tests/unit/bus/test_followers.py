"""A follower's order, against a stream that lags and a network that loses: nothing missing, nothing twice."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgents.bus import followers
from kgents.bus.followers import Followers
from kgents.bus.model import BusUnavailable


@dataclass
class Stored:
    sequence: int
    before: int
    subject: str
    data: bytes
    time: str

    def message(self) -> Any:
        headers = {
            "Nats-Sequence": str(self.sequence),
            "Nats-Last-Sequence": str(self.before),
            "Nats-Time-Stamp": self.time,
        }
        return SimpleNamespace(headers=headers, data=self.data)


@dataclass
class Stream:
    """A stream with direct gets and live messages, and a connection that is always there."""

    chance: random.Random
    stored: list[Stored] = field(default_factory=list)
    lags: int = 0
    epoch: int = 0

    def __post_init__(self) -> None:
        async def wait() -> None:
            await asyncio.sleep(0)

        self.subscriptions: set[Any] = set()
        self.connection = SimpleNamespace(
            closed=False,
            client=None,
            wait=wait,
            state=SimpleNamespace(connected=True),
            subscriptions=self.subscriptions,
        )

    def store(self, subject: str, data: bytes) -> Stored:
        last = max((message.sequence for message in self.stored if message.subject == subject), default=0)
        message = Stored(len(self.stored) + 1, last, subject, data, f"{self.epoch}-{len(self.stored)}")
        self.stored.append(message)
        return message

    def announce(self, message: Stored) -> None:
        for subscription in list(self.subscriptions):
            if subscription._subject == message.subject.replace("events", "live"):
                subscription._handler(message.message())

    def reconnect(self) -> None:
        for subscription in list(self.subscriptions):
            subscription.on_connect()

    async def collect(self, _: str, payload: bytes, *, timeout: float) -> tuple[list[Any], Any]:
        request = orjson.loads(payload)
        upto = len(self.stored)
        if self.lags and self.chance.random() < 0.5:
            self.lags -= 1
            upto = max(0, upto - self.chance.randint(1, 3))
        found = [
            message
            for message in self.stored[:upto]
            if message.subject == request["next_by_subj"] and message.sequence >= request["seq"]
        ]
        for _ in range(self.chance.randint(0, 3)):
            await asyncio.sleep(0)
        if not found:
            return [], SimpleNamespace(headers={"Status": "404"}, data=b"")
        taken = found[: min(request["batch"], 3)]
        end = {"Status": "204", "Nats-Num-Pending": str(len(found) - len(taken))}
        return [message.message() for message in taken], SimpleNamespace(headers=end, data=b"")


STEPS = st.lists(st.sampled_from(["announced", "missed", "late", "other", "reconnect", "run", "run"]), max_size=60)


@given(steps=STEPS, seed=st.integers(0, 2**16), lags=st.integers(0, 3))
def test_whatever_is_lost_late_or_lagging_the_sequence_is_whole(steps: list[str], seed: int, lags: int) -> None:
    async def play() -> None:
        stream = Stream(random.Random(seed), lags=lags)
        follower = Followers(stream).follow("r")  # type: ignore[arg-type]
        seen: list[bytes] = []

        async def read() -> None:
            async for data in follower:
                seen.append(data)
                if data == b"end":
                    return

        reading = asyncio.create_task(read())
        late: list[Stored] = []
        expected: list[bytes] = []
        for number, step in enumerate([*steps, "end"]):
            if step in ("announced", "missed", "late", "end"):
                data = b"end" if step == "end" else b"%d" % number
                expected.append(data)
                message = stream.store("kgents.events.r", data)
                if step == "late":
                    late.append(message)
                elif step != "missed":
                    stream.announce(message)
                    for delayed in late:
                        stream.announce(delayed)
                    late.clear()
            elif step == "other":
                stream.announce(stream.store("kgents.events.other", b"other"))
            elif step == "reconnect":
                stream.reconnect()
            else:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        await asyncio.wait_for(reading, 30)
        assert seen == expected
        await follower.aclose()
        assert not stream.subscriptions

    with pytest.MonkeyPatch.context() as patched:
        for name in ("FIRST_CHECK", "IDLE_CHECK", "PAUSE"):
            patched.setattr(followers, name, 0.001)
        asyncio.run(play())


async def follow_two(stream: Stream) -> Any:
    follower = Followers(stream).follow("r")  # type: ignore[arg-type]
    for data in (b"1", b"2"):
        stream.store("kgents.events.r", data)
    assert [await anext(follower), await anext(follower)] == [b"1", b"2"]
    return follower


async def test_a_stream_with_another_message_in_the_last_ones_place_is_an_error() -> None:
    stream = Stream(random.Random(0))
    follower = await follow_two(stream)
    stream.stored.clear()
    stream.epoch = 1
    for data in (b"1", b"2", b"3"):
        stream.store("kgents.events.r", data)
    stream.reconnect()
    with pytest.raises(BusUnavailable) as failure:
        await anext(follower)
    assert failure.value.code == "events-lost"


async def test_a_stream_that_discarded_what_comes_next_is_an_error() -> None:
    stream = Stream(random.Random(0))
    follower = await follow_two(stream)
    for data in (b"3", b"4"):
        stream.store("kgents.events.r", data)
    for message in stream.stored[:3]:
        message.subject = "discarded"
    stream.announce(stream.stored[3])
    with pytest.raises(BusUnavailable) as failure:
        await anext(follower)
    assert failure.value.code == "events-lost"


async def test_a_message_that_was_announced_and_is_nowhere_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kgents.bus.followers.CATCH_UP", 0.2)
    stream = Stream(random.Random(0))
    follower = await follow_two(stream)
    lost = stream.store("kgents.events.r", b"3")
    stream.announce(stream.store("kgents.events.r", b"4"))
    stream.stored.remove(lost)
    stream.stored.pop()
    with pytest.raises(BusUnavailable) as failure:
        await anext(follower)
    assert failure.value.code == "events-lost"
