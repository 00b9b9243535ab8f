"""The ledger against a model of it, and quotas when several ask at once; on both databases."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from kgents.clock import month_of
from kgents.errors import QuotaExceeded
from kgents.store.engine import Scope, open_store
from kgents.store.tables import balances, outbox, usage_events
from kgents.usage import service
from kgents.usage.ledger import Posting
from kgents.usage.model import METERS, NOTHING, Amounts
from kgents.usage.service import parse_moment
from tests.support.ledger import STEP, post_group, posting, tenant_with

MONTHS = (parse_moment("2026-01-31T23:59:59.999999Z"), parse_moment("2026-02-01"))
NOW = MONTHS[1]
LIMITS = Amounts(5, 100, 60, 3)

some = st.builds(Amounts, st.integers(0, 1), st.integers(0, 30), st.integers(0, 20), st.integers(0, 2))
step = st.tuples(st.booleans(), st.sampled_from(MONTHS), some, some, st.booleans())


async def balances_of(ledger, names):
    """(used, reserved) of each month that has anything in it."""
    rows = await ledger.read(
        Scope.system(),
        lambda c: c.execute(sa.select(balances).where(balances.c.tenant_id.in_(names))).mappings().all(),
    )
    found = {
        (row["tenant_id"], row["period"]): (
            Amounts(*(row[f"{meter}_used"] for meter in METERS)),
            Amounts(*(row[f"{meter}_reserved"] for meter in METERS)),
        )
        for row in rows
    }
    return {key: amounts for key, amounts in found.items() if amounts != (NOTHING, NOTHING)}


async def sums_of(ledger, names):
    """What the events of each month add up to."""
    found = {}
    for name in names:

        def query(connection, name=name):
            return service.query(connection, name, start=0, end=2 * NOW, window="month")

        for row in await ledger.read(Scope.system(), query):
            key = (name, month_of(row.window_start))
            found[key] = found.get(key, NOTHING)._replace(**{row.meter: row.quantity})
    return found


class Model:
    """What the balances must be: plain sums."""

    def __init__(self, limited):
        self.limited = limited
        self.used = defaultdict(lambda: NOTHING)
        self.reserved = defaultdict(lambda: NOTHING)
        self.held = []  # reservations that were not given back

    def book(self, one):
        """Do what a posting says; answers whether its reservation is refused."""
        key = (one.tenant_id, month_of(one.now))
        before = (one.tenant_id, one.release_period)
        self.reserved[before] = self.reserved[before].minus(one.release)
        self.used[key] = self.used[key].plus(one.used)
        total = self.used[key].plus(self.reserved[key]).plus(one.reserve)
        over = [asked and whole > most for asked, whole, most in zip(one.reserve, total, LIMITS, strict=True)]
        if one.tenant_id == self.limited and any(over):
            return True
        self.reserved[key] = self.reserved[key].plus(one.reserve)
        self.held.append((one.tenant_id, key[1], one.reserve))
        return False

    def give_back(self, tenant):
        """A reservation of the tenant that is still held, to release, with its month."""
        for index, (owner, period, reserve) in enumerate(self.held):
            if owner == tenant:
                del self.held[index]
                return {"release": reserve, "release_period": period}
        return {}

    def balances(self):
        keys = {key for key in (*self.used, *self.reserved) if (self.used[key], self.reserved[key]) != (NOTHING,) * 2}
        return {key: (self.used[key], self.reserved[key]) for key in keys}


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(groups=st.lists(st.lists(step, min_size=1, max_size=5), max_size=8))
async def test_balances_events_and_refusals_are_the_models(ledger, groups):
    names = limited, free = [await tenant_with(ledger, LIMITS), await tenant_with(ledger)]
    model = Model(limited)
    for group in groups:
        postings, refused = [], []
        for is_limited, now, used, reserve, releases in group:
            tenant = limited if is_limited else free
            one = posting(tenant, now, used)._replace(reserve=reserve)
            one = one._replace(**model.give_back(tenant)) if releases else one
            postings.append(one)
            refused.append(model.book(one))

        assert [refusal is not None for refusal in await post_group(ledger, *postings)] == refused

    assert await balances_of(ledger, names) == model.balances()
    used = {key: amounts for key, amounts in model.used.items() if amounts != NOTHING}
    assert await sums_of(ledger, names) == used


async def test_a_quota_holds_exactly_when_many_ask_at_once(ledger, database):
    name = await tenant_with(ledger, Amounts(runs=20, input_tokens=10**6, output_tokens=10**6, tool_calls=10**6))
    stores = [open_store(database.url) for _ in range(3)]

    refusals = await asyncio.gather(
        *(post_group(stores[n % 3], Posting(name, NOW, reserve=Amounts(runs=1))) for n in range(60))
    )

    for store in stores:
        await store.close()
    assert [refusal for [refusal] in refusals].count(None) == 20
    assert await balances_of(ledger, [name]) == {(name, "2026-02"): (NOTHING, Amounts(runs=20))}


async def test_a_refusal_says_what_is_left_and_what_to_do(ledger):
    name = await tenant_with(ledger, Amounts(runs=3))
    await post_group(ledger, posting(name, NOW, Amounts(runs=1)), Posting(name, NOW, reserve=Amounts(runs=1)))

    [refusal] = await post_group(ledger, Posting(name, NOW, reserve=Amounts(runs=2)))

    assert isinstance(refusal, QuotaExceeded)
    assert refusal.extra == {"meter": "runs", "limit": 3, "used": 1, "reserved": 1, "needed": 2, "period": "2026-02"}


async def test_the_same_work_is_never_recorded_twice(ledger):
    name = await tenant_with(ledger)
    one = posting(name, NOW)
    await post_group(ledger, one)

    with pytest.raises(IntegrityError):
        await post_group(ledger, one, posting(name, NOW))

    assert await balances_of(ledger, [name]) == {(name, "2026-02"): (STEP, NOTHING)}
    assert await sums_of(ledger, [name]) == {(name, "2026-02"): STEP}


async def test_usage_leaves_for_the_bus_with_the_work_that_it_measures(ledger):
    name = await tenant_with(ledger)
    one = posting(name, NOW)

    await post_group(ledger, one)

    rows = await ledger.read(Scope.system(), lambda c: c.execute(sa.select(outbox)).mappings().all())
    assert [(row["tenant_id"], row["topic"], row["message_id"]) for row in rows] == [
        (name, "usage", one.events[0].event_id)
    ]


@pytest.mark.postgres
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_postgresql_lets_nobody_change_an_event_that_was_recorded(ledger):
    name = await tenant_with(ledger)
    await post_group(ledger, posting(name, NOW))
    mine = usage_events.c.tenant_id == name

    for statement in (sa.delete(usage_events).where(mine), sa.update(usage_events).where(mine).values(quantity=1)):
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
            await ledger.write(
                Scope.tenant(name), lambda connection, statement=statement: connection.execute(statement)
            )
