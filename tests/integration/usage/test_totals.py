"""The totals of ledger and meter, compared again and again, on both databases."""

from __future__ import annotations

import math

import orjson
import pytest

from kgents.clock import SystemClock
from kgents.errors import Unavailable
from kgents.ids import first_id
from kgents.store.engine import Scope
from kgents.telemetry.metrics import Metrics
from kgents.usage.ledger import cloud_event
from kgents.usage.model import Amounts
from kgents.usage.totals import HOUR, MINUTE, Totals
from kgents.workers.auditor import Auditor
from tests.integration.workers.running import count
from tests.support.ledger import SOURCE, post, posting

NOW = SystemClock().now()
AGREED = {"runs": 0, "input_tokens": 0, "output_tokens": 0, "tool_calls": 0}


@pytest.fixture
def use(ledger, client):
    """A function that records usage, and has the meter count it or not."""

    async def use(*postings, metered=True):
        await ledger.write(Scope.system(), lambda connection: post(connection, *postings))
        if metered:
            events = [cloud_event(event, source=SOURCE) for each in postings for event in each.events]
            await client.ingest(orjson.dumps(events))

    return use


async def test_what_both_counted_does_not_differ(ledger, client, use):
    await use(*(posting(tenant, NOW - n * 20 * MINUTE) for tenant in ("ten_1", "ten_2") for n in range(1, 9)))
    assert await Totals(ledger, client).compare(NOW) == AGREED


async def test_units_that_one_of_them_lacks_add_up_over_hours(ledger, client, use):
    await use(posting("ten_1", NOW - 3 * HOUR, Amounts(output_tokens=7)), metered=False)
    await use(posting("ten_2", NOW - 5 * HOUR, Amounts(output_tokens=4)), metered=False)
    assert await Totals(ledger, client).compare(NOW) == AGREED | {"output_tokens": 11}


async def test_an_old_difference_counts_until_it_is_mended(ledger, client, use):
    totals = Totals(ledger, client)
    lost = posting("ten_1", NOW - 20 * HOUR)
    await use(lost, metered=False)
    await totals.compare(NOW)

    later = NOW + 40 * HOUR
    assert (await totals.compare(later))["runs"] == 1
    assert (await totals.compare(later + 30 * HOUR))["runs"] == 1
    await client.ingest(orjson.dumps([cloud_event(event, source=SOURCE) for event in lost.events]))
    assert await totals.compare(later + 31 * HOUR) == AGREED


async def test_the_usage_of_a_run_that_waited_for_days_is_no_difference(ledger, client, use):
    waited = first_id("run", NOW - 50 * HOUR)
    await use(posting("ten_1", NOW - 2 * HOUR), posting("ten_2", NOW - 2 * MINUTE, run_id=waited))
    totals = Totals(ledger, client)
    assert [await totals.compare(NOW + hours * HOUR) for hours in (0, 0, 3)] == [AGREED] * 3


async def test_what_may_still_be_on_its_way_is_not_missed(ledger, client, use):
    await use(posting("ten_1", NOW - 1), metered=False)
    assert await Totals(ledger, client).compare(NOW) == AGREED


async def test_the_auditor_tells_the_metrics(ledger, client, use):
    metrics, clock = Metrics("worker"), SystemClock()
    await use(posting("ten_1", NOW - HOUR), metered=False)

    await Auditor(ledger, client, metrics, clock, 300.0).audit()

    assert count(metrics, "reconcile_difference", meter="input_tokens") == 10
    assert count(metrics, "reconcile_difference", meter="tool_calls") == 0
    assert count(metrics, "reconcile_last_success_timestamp_seconds") == pytest.approx(clock.now() / 1e6, abs=60)


async def test_what_could_not_be_compared_again_is_not_told_as_it_was(ledger, client, use, meter):
    metrics = Metrics("worker")
    auditor = Auditor(ledger, client, metrics, SystemClock(), 300.0)
    await use(posting("ten_1", NOW - HOUR), metered=False)
    assert (await auditor.audit())["input_tokens"] == 10
    meter.kill()
    with pytest.raises(Unavailable):
        await auditor.audit()
    assert math.isnan(count(metrics, "reconcile_difference", meter="input_tokens"))


async def test_without_a_meter_nothing_is_told(ledger, client, meter):
    metrics = Metrics("worker")
    meter.kill()
    with pytest.raises(Unavailable):
        await Auditor(ledger, client, metrics, SystemClock(), 300.0).audit()
    assert count(metrics, "reconcile_last_success_timestamp_seconds") == 0
