"""Reconcile finds what was lost and what was added, and sends what was lost again; on both databases."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
import pytest
import sqlalchemy as sa

from kgents.clock import to_rfc3339
from kgents.errors import Unavailable, Unprocessable
from kgents.store.engine import Scope
from kgents.store.tables import outbox
from kgents.usage.ledger import cloud_event
from kgents.usage.model import Amounts
from kgents.usage.reconcile import reconcile
from kgents.usage.service import parse_moment
from tests.support.ledger import SOURCE, post, posting

JANUARY = parse_moment("2026-01-01"), parse_moment("2026-02-01")
NOON = parse_moment("2026-01-10T12:00:00Z")


@dataclass
class World:
    """A ledger and a meter, and what is done between them."""

    ledger: object
    client: object

    async def use(self, *postings, metered=True):
        """Record usage that has gone its way to the meter, or got lost on it."""

        def unit(connection):
            post(connection, *postings)
            connection.execute(sa.delete(outbox))

        await self.ledger.write(Scope.system(), unit)
        if metered:
            await self.meter(*(event for step in postings for event in step.events))

    async def meter(self, *events):
        await self.client.ingest(orjson.dumps([cloud_event(event, source=SOURCE) for event in events]))

    async def compare(self, **options):
        start, end = options.pop("range", JANUARY)
        return await reconcile(self.ledger, self.client, start=start, end=end, source=SOURCE, **options)


@pytest.fixture
def world(ledger, client):
    return World(ledger, client)


def shown(report):
    return [
        (found.tenant_id, found.meter, to_rfc3339(found.window_start)[:13], found.missing)
        for found in report.differences
    ]


async def test_a_meter_that_has_everything_agrees(world):
    await world.use(*(posting(tenant, NOON + n) for tenant in ("ten_1", "ten_2") for n in range(5)))

    report = await world.compare()

    assert (report.differences, report.compared, report.in_flight) == ([], 6, 0)


async def test_nothing_agrees_with_nothing(world):
    assert (await world.compare()).compared == 0


async def test_a_lost_event_is_found_where_it_is_missing(world):
    await world.use(posting("ten_1", NOON), posting("ten_2", NOON))
    await world.use(posting("ten_1", NOON, Amounts(output_tokens=7)), metered=False)

    report = await world.compare()

    assert shown(report) == [("ten_1", "output_tokens", "2026-01-10T00", 7)]
    assert [(found.ledger, found.metered) for found in report.differences] == [(12, 5)]


async def test_an_event_that_nobody_recorded_is_found(world):
    await world.use(posting("ten_1", NOON))
    await world.meter(*posting("ten_2", NOON, Amounts(input_tokens=9)).events)

    assert shown(await world.compare()) == [("ten_2", "input_tokens", "2026-01-10T00", -9)]


async def test_repair_sends_what_was_lost_and_only_that_counts(world):
    await world.use(posting("ten_1", NOON))
    await world.use(posting("ten_1", NOON), posting("ten_2", NOON), metered=False)

    report = await world.compare(repair=True)

    assert report.differences == []
    assert report.sent == 9  # of the windows that differed: three of them the meter had, and did not count again
    assert (await world.compare()).differences == []


async def test_repairing_again_sends_nothing(world):
    await world.use(posting("ten_1", NOON), metered=False)

    first, second = [await world.compare(repair=True) for _ in range(2)]

    assert (first.sent, second.sent) == (3, 0)


async def test_repair_does_not_hide_what_the_meter_has_too_much(world):
    await world.use(posting("ten_1", NOON, Amounts(input_tokens=10)), metered=False)
    await world.meter(*posting("ten_1", NOON, Amounts(input_tokens=25)).events)

    before = await world.compare()
    after = await world.compare(repair=True)

    assert shown(before) == [("ten_1", "input_tokens", "2026-01-10T00", -15)]
    assert shown(after) == [("ten_1", "input_tokens", "2026-01-10T00", -25)]


async def test_repair_sends_more_than_one_batch(world):
    await world.use(*(posting("ten_1", NOON + n, Amounts(runs=1)) for n in range(1201)), metered=False)

    report = await world.compare(repair=True)

    assert (report.differences, report.sent) == ([], 1201)


async def test_an_event_that_the_meter_refuses_does_not_keep_the_others_from_it(world):
    bad = posting("ten_1", NOON, Amounts(input_tokens=3), model="m" * 2000)
    await world.use(posting("ten_1", NOON, Amounts(input_tokens=10)), bad, metered=False)

    report = await world.compare(repair=True)

    assert [refused.event_id for refused in report.refused] == [bad.events[0].event_id]
    assert shown(report) == [("ten_1", "input_tokens", "2026-01-10T00", 3)]


async def test_what_is_still_in_the_outbox_is_told_apart(world):
    await world.use(posting("ten_1", NOON, Amounts(input_tokens=3)), metered=False)
    waiting = [posting("ten_1", NOON, Amounts(input_tokens=10)) for _ in range(2)]
    await world.ledger.write(Scope.system(), lambda connection: post(connection, *waiting))

    report = await world.compare()

    assert [(found.missing, found.in_flight) for found in report.differences] == [(23, 20)]
    assert report.in_flight == 2


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ("hour", ["2026-01-10T11", "2026-01-10T12", "2026-01-31T23"]),
        ("day", ["2026-01-10T00", "2026-01-31T00"]),
        ("month", ["2026-01-01T00"]),
    ],
)
async def test_windows_are_the_same_on_both_sides(world, window, expected):
    moments = [NOON - 1, NOON, JANUARY[1] - 1]
    await world.use(*(posting("ten_1", moment, Amounts(runs=1)) for moment in moments))
    agreed = await world.compare(window=window)
    await world.use(*(posting("ten_1", moment, Amounts(runs=1)) for moment in moments), metered=False)

    differing = await world.compare(window=window)

    assert (agreed.differences, agreed.compared) == ([], len(expected))
    assert [when for _, _, when, _ in shown(differing)] == expected


async def test_a_range_is_widened_to_whole_windows(world):
    await world.use(posting("ten_1", NOON - 3_600_000_000, Amounts(runs=1)), metered=False)

    report = await world.compare(range=(NOON, NOON + 1))

    assert shown(report) == [("ten_1", "runs", "2026-01-10T00", 1)]


async def test_what_is_outside_of_the_range_is_not_compared(world):
    await world.use(posting("ten_1", JANUARY[0] - 1), posting("ten_1", JANUARY[1]), metered=False)

    assert (await world.compare()).compared == 0


@pytest.mark.parametrize(
    ("window", "end"), [("hour", "9999-12-31T23:30:00Z"), ("day", "9999-12-31T12:00:00Z"), ("month", "9999-12-31")]
)
async def test_a_window_that_ends_after_the_year_9999_is_refused(world, window, end):
    with pytest.raises(Unprocessable, match=f"The {window} of 9999-12-31.* earlier time"):
        await world.compare(range=(JANUARY[0], parse_moment(end)), window=window)


async def test_only_the_tenants_that_are_asked_for_are_compared(world):
    await world.use(posting("ten_1", NOON, Amounts(runs=1)), posting("ten_2", NOON, Amounts(runs=1)), metered=False)

    report = await world.compare(tenants=["ten_2"], repair=True)

    assert (report.compared, report.differences, report.sent) == (1, [], 1)
    assert shown(await world.compare()) == [("ten_1", "runs", "2026-01-10T00", 1)]


async def test_a_meter_that_is_away_is_said_and_nothing_is_sent(world, meter):
    await world.use(posting("ten_1", NOON), metered=False)
    meter.kill()

    with pytest.raises(Unavailable):
        await world.compare(repair=True)


async def test_an_empty_meter_is_filled_again(world, meter):
    await world.use(*(posting(tenant, NOON + n) for tenant in ("ten_1", "ten_2") for n in range(50)))
    meter.stop()
    for path in meter.file.parent.glob("meter.db*"):
        path.unlink()
    meter.start()

    report = await world.compare(repair=True)

    assert (report.differences, report.sent, report.compared) == ([], 300, 6)
