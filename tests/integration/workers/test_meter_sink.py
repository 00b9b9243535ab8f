"""The meter sink: from the bus to the meter, which may be away or refuse."""

from __future__ import annotations

import orjson

from kgents.bus.streams import USAGE_STREAM, USAGE_SUBJECT
from kgents.meter.client import MeterUnavailable
from kgents.workers import meter_sink as sinking
from kgents.workers.meter_sink import MeterSink
from tests.contract.meter.process import event
from tests.integration.workers.running import count, running
from tests.support.waiting import eventually

GARBAGE = (b"", b"\xff\xfe", b"[", b"{}", b"[]]", b"7", b'[{"id": 1}, 2]')


async def publish(bus, *messages):
    for number, message in enumerate(messages):
        payload = message if isinstance(message, bytes) else orjson.dumps(message)
        await bus.publish(USAGE_SUBJECT, payload, message_id=f"{number}")


async def emptied(bus):
    async def is_empty():
        return (await bus.pending(USAGE_STREAM)).messages == 0

    await eventually(is_empty, seconds=30, what="the meter sink has taken everything")


async def test_what_is_on_the_bus_is_counted_by_the_meter(bus, meter, client, metrics):
    await publish(bus, *([event(f"{m}:{n}", n) for n in range(1, 4)] for m in range(40)))

    async with running(MeterSink(bus, client, metrics)):
        await emptied(bus)

    assert meter.totals() == {"ten_1": 40 * 6}
    assert count(metrics, "usage_events_metered_total") == 120
    assert count(metrics, "usage_events_refused_total") == 0


async def test_what_comes_twice_is_counted_once(bus, meter, client, metrics):
    await publish(bus, [event("a", 2)], [event("a", 2), event("b", 3)], [event("b", 3)])

    async with running(MeterSink(bus, client, metrics)):
        await emptied(bus)

    assert meter.totals() == {"ten_1": 5}


async def test_while_the_meter_is_away_the_bus_keeps_and_then_it_catches_up(bus, meter, client, metrics):
    meter.kill()
    await publish(bus, *([event(f"{n}", n)] for n in range(1, 11)))

    async with running(MeterSink(bus, client, metrics)):
        await eventually(lambda: count(metrics, "meter_connected") == 0, what="the meter is known to be away")
        assert (await bus.pending(USAGE_STREAM)).messages == 10
        meter.start()
        await emptied(bus)
        assert count(metrics, "meter_connected") == 1

    assert meter.totals() == {"ten_1": 55}


async def test_events_that_the_meter_refuses_hold_up_no_others(bus, meter, client, metrics):
    bad = event("bad", subject="")
    await publish(
        bus,
        [event("a", 1), bad, event("b", 2)],
        *GARBAGE,
        [event("c", 4)],
        [event("d", 8), event("negative", -1)],
        [event("e", 16)],
    )

    async with running(MeterSink(bus, client, metrics)):
        await emptied(bus)

    assert meter.totals() == {"ten_1": 31}
    assert count(metrics, "usage_events_refused_total") >= 2


async def test_a_full_disk_of_the_meter_loses_nothing(bus, meter, client, metrics):
    meter.fill_the_disk()
    await publish(bus, *([event(f"{m}:{n}", 1, model="m" * 500) for n in range(50)] for m in range(10)))

    async with running(MeterSink(bus, client, metrics)):
        await eventually(lambda: count(metrics, "meter_connected") == 0, what="the meter can keep no more")
        meter.make_room()
        await emptied(bus)

    assert meter.totals() == {"ten_1": 500}


async def test_a_sink_that_is_stopped_in_between_leaves_the_rest_to_another(bus, make_bus, meter, client, metrics):
    await publish(bus, *([event(f"{n}", 1)] for n in range(200)))

    async with running(MeterSink(await make_bus(), client, metrics)):
        await eventually(lambda: count(metrics, "usage_events_metered_total") > 0, what="it has begun")
    async with running(MeterSink(bus, client, metrics)):
        await emptied(bus)

    assert meter.totals() == {"ten_1": 200}


class Failing:
    """A meter that answers 500 to whatever holds the event `poison`, or to everything."""

    def __init__(self, client, *, away=False):
        self._client = client
        self._away = away
        self.poisoned = True
        self.asked = []

    async def ping(self):
        if self._away:
            raise MeterUnavailable("ConnectError")
        return await self._client.ping()

    async def ingest(self, payload):
        self.asked.append({event["id"] for event in orjson.loads(payload)})
        if self._away or (self.poisoned and "poison" in self.asked[-1]):
            raise MeterUnavailable("it answered 500")
        await self._client.ingest(payload)


async def test_an_event_that_the_meter_always_fails_on_holds_up_no_others_and_is_kept(
    bus, meter, client, metrics, monkeypatch
):
    monkeypatch.setattr(sinking, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(sinking, "RETRY", 0.01)
    failing = Failing(client)
    await publish(bus, *([event(f"{n}", 1)] for n in range(5)), [event("poison", 100)], [event("last", 1)])

    async with running(MeterSink(bus, failing, metrics)):
        await eventually(lambda: meter.totals() == {"ten_1": 6}, what="the meter has the others")
        await eventually(lambda: failing.asked.count({"poison"}) > 8, what="it is tried again and again")
        assert (await bus.pending(USAGE_STREAM)).messages == 1
        failing.poisoned = False
        await emptied(bus)

    assert meter.totals() == {"ten_1": 106}


async def test_while_the_meter_is_away_a_batch_is_not_divided(bus, client, metrics, monkeypatch):
    monkeypatch.setattr(sinking, "FIRST_DELAY", 0.01)
    away = Failing(client, away=True)
    await publish(bus, *([event(f"{n}", 1)] for n in range(4)))

    async with running(MeterSink(bus, away, metrics)):
        await eventually(lambda: len(away.asked) > 2 * sinking.TRIES, what="it is tried again and again")

    assert len({frozenset(asked) for asked in away.asked}) == 1
