"""Lists of usage events: in their order, page by page, at the cost of a page."""

from __future__ import annotations

import pytest

from kgents.errors import Unprocessable
from kgents.store.engine import Scope
from kgents.usage import repository, service
from kgents.usage.model import Amounts, events_of
from tests.support.costs import cost_of

END = 10**9


def of_run(number, tenant="ten_1", at=None):
    """The three events of a run, which ends at the time of its number, or `at` another."""
    run_id = f"run_{tenant}_{number:06}"
    fields = {"tenant_id": tenant, "run_id": run_id, "step": 0, "agent_id": "agt_1", "model": "m", "estimated": False}
    return events_of(Amounts(1, 2, 3), now=number if at is None else at, **fields)


async def add(ledger, events):
    await ledger.write(Scope.system(), lambda connection: repository.insert_events(connection, events))


def listed(connection, **options):
    return service.events(connection, "ten_1", **{"start": 0, "end": END, **options})


async def read(ledger, **options):
    return await ledger.read(Scope.tenant("ten_1"), lambda connection: listed(connection, **options))


async def test_events_are_listed_as_they_occurred_page_after_page(ledger):
    await add(ledger, [*of_run(1, at=30), *of_run(2, at=10), *of_run(3, at=20), *of_run(4, at=20), *of_run(5, "ten_2")])

    whole = await read(ledger, limit=100)
    pages = []
    while page := await read(ledger, limit=2, after=pages[-1].event_id if pages else ""):
        pages += page

    assert pages == whole
    assert whole == sorted(whole, key=lambda event: (event.occurred_at, event.event_id))
    assert [event.run_id[-1] for event in whole[::3]] == ["2", "3", "4", "1"]


async def test_a_runs_events_and_a_meters_are_picked_out(ledger):
    await add(ledger, [*of_run(1), *of_run(2), *of_run(2, "ten_2")])

    of_the_run = await read(ledger, run_id="run_ten_1_000002")

    assert {event.run_id for event in of_the_run} == {"run_ten_1_000002"}
    assert [event.meter for event in of_the_run] == ["input_tokens", "output_tokens", "runs"]
    assert [event.quantity for event in await read(ledger, run_id="run_ten_1_000002", meter="runs")] == [1]
    for nobodys in ("run_ten_2_000002", "run_ten_1_000002:0", "run_ten_1", "'"):
        assert await read(ledger, run_id=nobodys) == []


@pytest.mark.parametrize("after", ["run_ten_2_000001:0:runs", "run_ten_1_000001", "nothing"])
async def test_a_list_goes_on_only_after_an_event_of_the_tenants(ledger, after):
    await add(ledger, [*of_run(1), *of_run(1, "ten_2")])

    with pytest.raises(Unprocessable):
        await read(ledger, after=after)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"after": "run_ten_1_000005:0:runs"},
        {"run_id": "run_ten_1_000005"},
        {"meter": "runs"},
        {"start": 5, "after": "run_ten_1_000005:0:runs", "meter": "runs"},
    ],
    ids=lambda options: "-".join(options),
)
async def test_a_page_costs_the_same_however_many_events_there_are(ledger, options):
    costs = []
    for numbers in (range(100), range(100, 2000)):
        await add(ledger, [event for number in numbers for event in of_run(number)])
        costs.append(
            await ledger.read(
                Scope.tenant("ten_1"),
                lambda connection: cost_of(connection, lambda: listed(connection, limit=20, **options)),
            )
        )
    assert costs[1] < 2 * costs[0], costs
