"""What usage adds up to, as it is kept, against plain sums of what was used; on both databases."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kgents.store.engine import Scope
from kgents.usage import service, sums
from kgents.usage.model import METERS, Amounts
from kgents.usage.sums import DAY, HOUR
from tests.support.ledger import post_group, posting, tenant_with

BEGIN = 20_000 * DAY + 22 * HOUR  # two hours before a day's end
EDGES = [BEGIN + hours * HOUR + less for hours in range(5) for less in (-1, 0, 1)]
moments = st.one_of(st.sampled_from(EDGES), st.integers(BEGIN, BEGIN + 4 * HOUR))
used = st.builds(Amounts, st.integers(0, 1), st.integers(0, 30), st.integers(0, 20), st.integers(0, 2))
steps = st.tuples(moments, used, st.sampled_from(["agt_1", "agt_2"]), st.sampled_from(["kgents:echo", "other"]))


async def filled(ledger, *groups):
    """A new tenant that has used so much, and another with the same; what the first has, by what tells it apart."""
    mine, other = [await tenant_with(ledger), await tenant_with(ledger)]
    expected = []
    for group in groups:
        postings = [
            posting(name, now, amounts, agent_id=agent, model=model)
            for now, amounts, agent, model in group
            for name in (mine, other)
            if any(amounts)
        ]
        await post_group(ledger, *postings)
        for now, amounts, agent, model in group:
            expected += [(now, meter, agent, model, quantity) for meter, quantity in zip(METERS, amounts, strict=True)]
    return mine, expected


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    groups=st.lists(st.lists(steps, max_size=5), max_size=6),
    between=st.tuples(moments, moments).map(sorted),
    window=st.sampled_from(["hour", "day", "month"]),
    by=st.sampled_from([(), ("agent",), ("model",), ("agent", "model")]),
    meters=st.sampled_from([METERS, ("input_tokens",), ("tool_calls",)]),
)
async def test_a_query_is_the_sum_of_what_was_used(ledger, groups, between, window, by, meters):
    mine, expected = await filled(ledger, *groups)
    start, end = between

    rows = await ledger.read(
        Scope.tenant(mine),
        lambda c: service.query(c, mine, start=start, end=end, window=window, meters=meters, group_by=by),
    )

    expected_sums = Counter()
    for now, meter, agent, model, quantity in expected:
        if start <= now < end and meter in meters:
            groups_of = agent if "agent" in by else None, model if "model" in by else None
            expected_sums[(meter, service.window_of(now, window), *groups_of)] += quantity
    assert {(row.meter, row.window_start, row.agent, row.model): row.quantity for row in rows} == +expected_sums
    assert {row.tenant_id for row in rows} <= {mine}


@pytest.mark.parametrize("part", [sums.PART, 7, 1])
async def test_what_is_kept_is_what_the_events_add_up_to(ledger, monkeypatch, part):
    """Whole hours and parts of them, of a tenant and of all, however few events are read at a time."""
    monkeypatch.setattr(sums, "PART", part)
    groups = [[(BEGIN + part * HOUR // 7, Amounts(1, part, 2 * part, part % 2), "agt_1", "m")] for part in range(1, 20)]
    mine, _ = await filled(ledger, *groups)
    times = {"start": BEGIN + HOUR // 3, "end": BEGIN + 5 * HOUR // 2, "window": "hour"}

    query = await ledger.read(Scope.tenant(mine), lambda c: service.query(c, mine, **times))
    alone = await ledger.read(Scope.tenant(mine), lambda c: service.recount(c, mine, **times))
    everybody = await ledger.read(Scope.system(), lambda c: service.recount(c, None, **times))

    assert query == alone == [row for row in everybody if row.tenant_id == mine]
    assert len({row.tenant_id for row in everybody}) == 2
