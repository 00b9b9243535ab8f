"""The feed of changes: everything is heard, once, however late it is committed."""

import pytest

from kgents.clock import ManualClock
from kgents.errors import Unavailable
from kgents.store import changes
from kgents.store.changes import FRESH, KEPT, TRAILING, Change, ChangeFeed


class Rows:
    """A store that holds what was committed of the table; rows may appear late, with a low number."""

    def __init__(self):
        self.committed = {}
        self.away = False
        self.asked_after = []

    def commit(self, *seqs):
        for seq in seqs:
            self.committed[seq] = Change(seq, "ten", "api_key", f"key_{seq}")

    async def read(self, scope, fn):
        if self.away:
            raise Unavailable("away")
        return fn(self)


class Heard:
    """Somebody who caches."""

    def __init__(self):
        self.seqs = []
        self.forgotten = 0

    def tell(self, change):
        self.seqs.append(change.seq)

    def forget(self):
        self.forgotten += 1


@pytest.fixture
def rows(monkeypatch):
    def poll(rows, after):
        rows.asked_after.append(after)
        return [rows.committed[seq] for seq in sorted(rows.committed) if seq > after]

    monkeypatch.setattr(changes, "poll", poll)
    return Rows()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def feed(rows, clock):
    return ChangeFeed(rows, clock)


@pytest.fixture
def heard(feed):
    listener = Heard()
    feed.subscribe(listener.tell, listener.forget)
    return listener


async def test_changes_are_told_in_their_order(feed, rows, heard):
    rows.commit(2, 1)
    await feed.poll()
    assert heard.seqs == [1, 2]


async def test_each_change_is_told_once(feed, rows, heard):
    rows.commit(1)
    await feed.poll()
    await feed.poll()
    assert heard.seqs == [1]


async def test_a_change_that_is_committed_after_a_later_one_is_heard(feed, rows, heard, clock):
    rows.commit(2)
    await feed.poll()
    clock.advance(TRAILING - 1)
    await feed.poll()
    rows.commit(1)
    await feed.poll()
    assert heard.seqs == [2, 1]


async def test_old_changes_are_not_read_for_ever(feed, rows, heard, clock):
    rows.commit(1, 2, 3)
    await feed.poll()
    clock.advance(TRAILING + 1)
    await feed.poll()
    await feed.poll()
    assert rows.asked_after[-1] == 3


async def test_a_busy_feed_moves_on_too(feed, rows, heard, clock):
    for seq in range(1, 201):
        rows.commit(seq)
        await feed.poll()
        clock.advance(1)
    assert heard.seqs == list(range(1, 201))
    assert 200 - rows.asked_after[-1] <= TRAILING + 3


async def test_a_feed_that_was_never_read_is_not_fresh(feed):
    assert not feed.fresh()


async def test_a_feed_is_fresh_for_less_than_a_second(feed, clock):
    await feed.poll()
    assert feed.fresh()
    clock.advance(FRESH)
    assert not feed.fresh()
    assert FRESH < 1


async def test_a_feed_that_can_not_be_read_does_not_stay_fresh(feed, rows, clock):
    await feed.poll()
    rows.away = True
    clock.advance(FRESH)
    with pytest.raises(Unavailable):
        await feed.poll()
    assert not feed.fresh()


async def test_after_standing_still_for_long_everything_is_forgotten(feed, heard, clock):
    await feed.poll()
    before = heard.forgotten
    clock.advance(KEPT)
    await feed.poll()
    assert heard.forgotten == before + 1
