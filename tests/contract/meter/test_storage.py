"""The meter's writer: shared commits, and one batch's failure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from kgents.clock import from_rfc3339
from kgents.errors import Unavailable
from kgents.meter.model import METERS, Event, Reading
from kgents.meter.storage import Storage

NOON = from_rfc3339("2026-03-10T12:00:00Z")


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    storage = Storage(tmp_path / "meter.db", now=NOON)
    yield storage
    storage.close()


def made(id_: str, time: int = NOON) -> Event:
    return Event(id_, "test", "kgents.runs", "ten_1", time, None, [Reading(METERS[0], ("a", "m"), 1)])


async def kept(storage: Storage) -> set[str]:
    return await storage.read(lambda connection: {row[0] for row in connection.execute("SELECT id FROM events")})


async def test_events_that_wait_together_share_a_commit(storage: Storage) -> None:
    statements: list[str] = []
    storage._write.set_trace_callback(statements.append)
    await asyncio.gather(*[storage.ingest([made(str(number))], NOON) for number in range(1000)])
    assert statements.count("COMMIT") < 200


async def test_a_batch_that_can_not_be_kept_fails_alone(storage: Storage) -> None:
    batches = [[made(f"{number}")] for number in range(40)]
    batches[20].append(made("impossible", time=2**70))
    results = await asyncio.gather(*[storage.ingest(batch, NOON) for batch in batches], return_exceptions=True)
    assert [place for place, result in enumerate(results) if result is not None] == [20]
    assert isinstance(results[20], Unavailable)
    assert await kept(storage) == {str(number) for number in range(40) if number != 20}


async def test_what_was_accepted_before_the_end_is_kept(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "meter.db", now=NOON)
    waiting = [asyncio.ensure_future(storage.ingest([made(str(number))], NOON)) for number in range(300)]
    await asyncio.sleep(0)
    storage.close()
    await asyncio.gather(*waiting)
    again = Storage(tmp_path / "meter.db", now=NOON)
    assert len(await kept(again)) == 300
    again.close()


async def test_a_closed_storage_takes_nothing(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "meter.db", now=NOON)
    storage.close()
    with pytest.raises(Unavailable, match="stopping"):
        await storage.ingest([made("late")], NOON)
