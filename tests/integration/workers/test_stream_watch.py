"""The gauges of the bus's streams."""

from __future__ import annotations

import math

from kgents.bus.streams import USAGE_STREAM, USAGE_SUBJECT
from kgents.workers.stream_watch import StreamWatch
from tests.integration.workers.running import count, running
from tests.support.waiting import eventually


async def test_a_stream_is_told_of(bus, metrics):
    await bus.publish(USAGE_SUBJECT, b"[]", message_id="1")
    async with running(StreamWatch(bus, metrics)):
        await eventually(lambda: count(metrics, "stream_messages", stream=USAGE_STREAM) == 1)
    assert count(metrics, "stream_bytes", stream=USAGE_STREAM) > 0
    assert count(metrics, "stream_replicas", stream=USAGE_STREAM) == 1
    assert count(metrics, "stream_replicas_current", stream=USAGE_STREAM) == 1


async def test_of_a_bus_that_is_away_nothing_is_known(bus, metrics):
    await bus.publish(USAGE_SUBJECT, b"[]", message_id="1")
    async with running(StreamWatch(bus, metrics)):
        await eventually(lambda: count(metrics, "stream_replicas_current", stream=USAGE_STREAM) == 1)
        await bus.close()
        await eventually(lambda: count(metrics, "stream_replicas_current", stream=USAGE_STREAM) == 0)
    for gauge in ("messages", "bytes", "oldest_age_seconds"):
        assert math.isnan(count(metrics, f"stream_{gauge}", stream=USAGE_STREAM))
