"""How a group of writes is run and settled."""

import asyncio

import pytest
import sqlalchemy as sa

from kgents.errors import NotFound, Unavailable
from kgents.store.groups import TRIES, Waiting, ended_by_outage, halves, is_final, run_group, settle


class Echo:
    """Answers each item with itself, and keeps the groups that it saw."""

    def __init__(self):
        self.seen = []

    def tenant_of(self, item):
        return "t"

    def apply(self, connection, items):
        self.seen.append(list(items))
        return list(items)


class Short(Echo):
    """Forgets to answer."""

    def apply(self, connection, items):
        return []


def waiting(op, item):
    return Waiting(op, item, asyncio.get_running_loop().create_future())


COLLISION = sa.exc.NotSupportedError("SELECT 1", None, type("InvalidCachedStatementError", (Exception,), {})())


async def test_each_operation_is_run_once_on_all_of_its_items():
    first, second = Echo(), Echo()
    group = [waiting(first, 1), waiting(second, 2), waiting(first, 3)]
    assert run_group(None, group) == [1, 2, 3]
    assert (first.seen, second.seen) == ([[1, 3]], [[2]])


async def test_an_operation_that_does_not_answer_for_each_item_fails():
    with pytest.raises(ValueError, match="shorter"):
        run_group(None, [waiting(Short(), 1)])


async def test_results_and_refusals_reach_their_callers():
    group = [waiting(Echo(), 1), waiting(Echo(), 2)]
    settle(group, ["done", NotFound("no")])
    assert await group[0].future == "done"
    with pytest.raises(NotFound):
        await group[1].future


async def test_a_caller_that_went_away_does_not_disturb_the_others():
    group = [waiting(Echo(), 1), waiting(Echo(), 2)]
    group[0].future.cancel()
    settle(group, ["first", "second"])
    assert await group[1].future == "second"


async def test_an_outage_reaches_callers_as_unavailable():
    group = [waiting(Echo(), 1)]
    settle(group, [ConnectionResetError()])
    with pytest.raises(Unavailable):
        await group[0].future


@pytest.mark.parametrize("error", [StopIteration(), SystemExit(1), asyncio.CancelledError()], ids=repr)
async def test_an_exception_that_a_future_can_not_carry_is_wrapped(error):
    group = [waiting(Echo(), 1), waiting(Echo(), 2)]
    settle(group, [error, "fine"])
    with pytest.raises(RuntimeError, match=type(error).__name__):
        await group[0].future
    assert await group[1].future == "fine"


def test_a_group_of_several_is_tried_again():
    assert not is_final(ValueError(), size=2, tries=1)


def test_an_item_alone_is_refused():
    assert is_final(ValueError(), size=1, tries=1)


def test_an_outage_is_final_for_all():
    assert is_final(ConnectionResetError(), size=200, tries=1)


def test_a_collision_is_tried_again_a_few_times():
    assert [is_final(COLLISION, size=1, tries=tries) for tries in (1, TRIES)] == [False, True]


def test_halves_hold_everything_in_order():
    assert halves([1, 2, 3]) == ([1, 2], [3])


def test_only_an_outage_at_the_end_says_that_there_is_no_use_in_going_on():
    assert ended_by_outage([1, ConnectionResetError()])
    assert not ended_by_outage([ConnectionResetError(), 1])
    assert not ended_by_outage([ValueError()])
