"""`/v1/usage` on both databases over months of events: what it says is what the ledger has, to the token."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from kgents.store.engine import PostgresStore, Scope, SqliteStore, open_store
from kgents.usage.model import Amounts
from kgents.usage.service import parse_moment
from tests.support.ledger import STEP, post, posting
from tests.support.refusals import refused
from tests.support.up import Up

QUARTER = {"from": "2025-12-01", "to": "2026-03-01"}


@pytest.fixture
async def store(up: Up) -> AsyncIterator[SqliteStore | PostgresStore]:
    """The database of the running kgents."""
    opened = open_store(json.loads((up.data / "connections.json").read_text())["database_url"])
    yield opened
    await opened.close()


async def use(store, tenant, *moments, used=STEP, **fields):
    steps = [posting(tenant.id, parse_moment(moment), used, **fields) for moment in moments]
    await store.write(Scope.tenant(tenant.id), lambda connection: post(connection, *steps))


def usage(tenant, **params):
    return tenant.http.get("/v1/usage", params=params).raise_for_status().json()


def rows(report):
    return [(row["meter"], row["window_start"][:16], row["quantity"]) for row in report["data"]]


async def test_sums_are_by_month_on_the_utc_calendar(tenant, store):
    await use(
        store,
        tenant,
        "2025-12-31T23:59:59.999999Z",
        "2026-01-01T00:00:00Z",
        "2026-01-31T23:59:59.999999Z",
        "2026-02-01T00:00:00Z",
    )

    found = usage(tenant, meter="input_tokens", window="month", **QUARTER)

    assert rows(found) == [
        ("input_tokens", "2025-12-01T00:00", 10),
        ("input_tokens", "2026-01-01T00:00", 20),
        ("input_tokens", "2026-02-01T00:00", 10),
    ]


async def test_sums_are_by_day_and_by_hour(tenant, store):
    await use(store, tenant, "2026-01-05T10:59:59Z", "2026-01-05T11:00:00Z", "2026-01-06T11:30:00Z")

    by_day = usage(tenant, meter="runs", window="day", **QUARTER)
    by_hour = usage(tenant, meter="runs", window="hour", **QUARTER)

    assert rows(by_day) == [("runs", "2026-01-05T00:00", 2), ("runs", "2026-01-06T00:00", 1)]
    assert [window[5:] for _, window, _ in rows(by_hour)] == ["01-05T10:00", "01-05T11:00", "01-06T11:00"]


async def test_all_meters_are_told_unless_one_is_asked_for(tenant, store):
    await use(store, tenant, "2026-01-05", used=Amounts(1, 2, 3, 4))

    found = usage(tenant, window="month", **QUARTER)

    assert {row["meter"]: row["quantity"] for row in found["data"]} == {
        "runs": 1,
        "input_tokens": 2,
        "output_tokens": 3,
        "tool_calls": 4,
    }


async def test_the_start_is_in_and_the_end_is_out(tenant, store):
    await use(store, tenant, "2026-01-05T00:00:00Z", "2026-01-06T00:00:00Z")

    found = usage(tenant, **{"meter": "runs", "from": "2026-01-05", "to": "2026-01-06"})

    assert rows(found) == [("runs", "2026-01-05T00:00", 1)]


async def test_a_time_with_an_offset_is_that_moment(tenant, store):
    await use(store, tenant, "2026-01-05T00:30:00Z")

    found = usage(tenant, **{"meter": "runs", "from": "2026-01-05T01:00:00+01:00", "to": "2026-01-05T01:45:00+01:00"})

    assert rows(found) == [("runs", "2026-01-05T00:00", 1)]


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        ("agent", {("agt_1", None): 2, ("agt_2", None): 1}),
        ("model", {(None, "m1"): 1, (None, "m2"): 2}),
        ("agent,model", {("agt_1", "m1"): 1, ("agt_1", "m2"): 1, ("agt_2", "m2"): 1}),
        ("model,agent", {("agt_1", "m1"): 1, ("agt_1", "m2"): 1, ("agt_2", "m2"): 1}),
    ],
)
async def test_sums_are_grouped(tenant, store, group_by, expected):
    for agent, model in (("agt_1", "m1"), ("agt_1", "m2"), ("agt_2", "m2")):
        await use(store, tenant, "2026-01-05", agent_id=agent, model=model)

    found = usage(tenant, meter="runs", group_by=group_by, **QUARTER)["data"]

    assert {(row["agent"], row["model"]): row["quantity"] for row in found} == expected


async def test_quantities_are_exact_beyond_what_a_float_holds(tenant, store):
    await use(store, tenant, "2026-01-05", "2026-01-05", used=Amounts(input_tokens=2**53))
    await use(store, tenant, "2026-01-05", used=Amounts(input_tokens=1))

    assert rows(usage(tenant, **QUARTER))[0][2] == 2**54 + 1


async def test_an_answer_that_would_be_too_long_is_refused_not_cut(tenant, store):
    await use(store, tenant, *(f"2026-01-05T{n % 24:02}:00:00Z" for n in range(10_001)), used=Amounts(runs=1))
    many = [
        posting(tenant.id, parse_moment("2026-01-05"), Amounts(runs=1), agent_id=f"agt_{number}")
        for number in range(10_001)
    ]
    await store.write(Scope.tenant(tenant.id), lambda connection: post(connection, *many))

    params = {"group_by": "agent", "meter": "runs", "window": "day", **QUARTER}
    refused(tenant.http.get("/v1/usage", params=params), 422, "too-many-rows")
    assert rows(usage(tenant, meter="runs", window="day", **QUARTER)) == [("runs", "2026-01-05T00:00", 20_002)]


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"meter": "walks"}, 422),
        ({"window": "week"}, 422),
        ({"group_by": "tenant"}, 422),
        ({"group_by": "agent,agent,agent"}, 422),
        ({"from": "yesterday"}, 400),
        ({"from": "2026-01-05T00:00:00"}, 400),
        ({"from": "2026-02-30"}, 400),
        ({"from": "2026-02-01", "to": "2026-01-01"}, 422),
        ({"from": "2020-01-01", "to": "2026-01-01"}, 422),
        ({"to": "9999-12-31T23:59:59-23:59"}, 400),
        ({"from": "9999-12-31", "to": "9999-12-31T23:59:59-23:59"}, 400),
        ({"from": "0001-01-01T00:00:00+23:59"}, 400),
    ],
)
def test_a_query_that_can_not_be_answered_is_refused(tenant, params, status):
    refused(tenant.http.get("/v1/usage", params=params), status)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("0001-01-01T00:00:00.000000Z", "0001-01-02T00:00:00.000000Z"),
        ("9999-12-30T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_the_times_of_the_answer_are_rfc_3339_in_any_year(tenant, start, end):
    found = usage(tenant, **{"from": start, "to": end})

    assert (found["from"], found["to"], found["data"]) == (start, end, [])


async def test_events_are_listed_page_by_page(tenant, store):
    await use(store, tenant, *(f"2026-01-0{day}" for day in range(1, 6)))

    pages, after = [], ""
    while True:
        params = {"limit": 4, "after": after, **QUARTER}
        page = tenant.http.get("/v1/usage/events", params=params).raise_for_status().json()
        pages.append([event["id"] for event in page["data"]])
        after = page["last_id"]
        if not page["has_more"]:
            break

    assert [len(page) for page in pages] == [4, 4, 4, 3]
    ids = [id_ for page in pages for id_ in page]
    assert len(set(ids)) == 15


async def test_an_event_is_what_was_written(tenant, store):
    run_id = "run_01ARZ3NDEKTSV4RRFFQ69G5FAV"
    await use(store, tenant, "2026-01-05T10:00:00.000001Z", used=Amounts(tool_calls=3), run_id=run_id, estimated=True)

    found = tenant.http.get("/v1/usage/events", params=QUARTER).raise_for_status().json()["data"]

    assert found == [
        {
            "object": "usage_event",
            "id": f"{run_id}:0:tool_calls",
            "meter": "tool_calls",
            "quantity": 3,
            "run_id": run_id,
            "agent_id": "agt_1",
            "model": "kgents:echo",
            "estimated": True,
            "occurred_at": "2026-01-05T10:00:00.000001Z",
        }
    ]


async def test_events_are_filtered(tenant, store):
    await use(store, tenant, "2026-01-05", run_id="run_01ARZ3NDEKTSV4RRFFQ69G5FAX")
    await use(store, tenant, "2026-01-06", run_id="run_01ARZ3NDEKTSV4RRFFQ69G5FAY")

    def ids(**params):
        page = tenant.http.get("/v1/usage/events", params={**QUARTER, **params}).raise_for_status().json()
        return {event["id"][-len("X:0:runs") :] for event in page["data"] if event["meter"] == "runs"}

    assert ids(run="run_01ARZ3NDEKTSV4RRFFQ69G5FAX") == {"X:0:runs"}
    assert ids(meter="runs") == {"X:0:runs", "Y:0:runs"}
    assert ids(**{"from": "2026-01-06"}) == {"Y:0:runs"}
    assert ids(run="run_of_nobody") == set()


@pytest.mark.parametrize("after", ["a b", "';--", "a" * 129, "ü"])
def test_a_cursor_that_can_not_be_is_refused(tenant, after):
    refused(tenant.http.get("/v1/usage/events", params={"after": after}), 422)


async def test_another_tenants_usage_is_not_told(new_tenant, store):
    owner, stranger = new_tenant(), new_tenant()
    await use(store, owner, "2026-01-05", run_id="run_01ARZ3NDEKTSV4RRFFQ69G5FAZ")

    assert usage(stranger, **QUARTER)["data"] == []
    params = {**QUARTER, "run": "run_01ARZ3NDEKTSV4RRFFQ69G5FAZ"}
    assert stranger.http.get("/v1/usage/events", params=params).json()["data"] == []
    assert {row["used"] for row in stranger.http.get("/v1/usage/balance").json()["meters"]} == {0}
    assert rows(usage(owner, meter="runs", **QUARTER)) == [("runs", "2026-01-05T00:00", 1)]
