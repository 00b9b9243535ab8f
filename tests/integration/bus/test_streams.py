"""The streams have the settings that durability and speed rest on, as the server itself reports them."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from kgents.bus.nats import Bus, BusUnavailable
from tests.support.waiting import eventually

NANOSECONDS = 1_000_000_000


async def config(bus: Bus, stream: str) -> dict[str, Any]:
    answer: dict[str, Any] = await bus._jetstream.api(f"STREAM.INFO.{stream}")
    return answer["config"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(("stream", "subject"), [("KGENTS_USAGE", "kgents.usage"), ("KGENTS_RUNS", "kgents.runs")])
async def test_queues_are_work_queues_on_disk_that_refuse_rather_than_drop(bus: Bus, stream: str, subject: str) -> None:
    found = await config(bus, stream)
    assert {name: found[name] for name in ("subjects", "storage", "retention", "discard", "num_replicas")} == {
        "subjects": [subject],
        "storage": "file",
        "retention": "workqueue",
        "discard": "new",
        "num_replicas": 1,
    }
    assert found["duplicate_window"] == 120 * NANOSECONDS
    assert found.get("persist_mode", "default") == "default"


async def test_events_are_written_behind_and_bounded(bus: Bus) -> None:
    found = await config(bus, "KGENTS_EVENTS")
    assert found["persist_mode"] == "async"
    assert (found["storage"], found["retention"], found["discard"]) == ("file", "limits", "old")
    assert found["max_age"] == 24 * 3600 * NANOSECONDS
    assert found["max_bytes"] == 512 * 1024 * 1024


async def test_ensuring_again_changes_nothing(bus: Bus) -> None:
    before = await config(bus, "KGENTS_EVENTS")
    await bus.ensure_streams()
    assert await config(bus, "KGENTS_EVENTS") == before


async def test_a_setting_that_differs_is_put_right(bus: Bus) -> None:
    before = await config(bus, "KGENTS_EVENTS")
    await bus._jetstream.api("STREAM.UPDATE.KGENTS_EVENTS", {**before, "max_age": 60 * NANOSECONDS})
    await bus.ensure_streams()
    assert (await config(bus, "KGENTS_EVENTS"))["max_age"] == before["max_age"]


@pytest.mark.parametrize("stream", ["KGENTS_USAGE", "KGENTS_RUNS", "KGENTS_EVENTS"])
async def test_a_stream_that_is_gone_is_made_again_once_it_is_missed(bus: Bus, stream: str) -> None:
    before = await config(bus, stream)
    await bus._jetstream.api(f"STREAM.DELETE.{stream}")
    with pytest.raises(BusUnavailable):
        await bus.publish(before["subjects"][0].replace("*", "run_1"), b"missed")

    async def there() -> bool:
        with contextlib.suppress(BusUnavailable):
            await bus.publish(before["subjects"][0].replace("*", "run_1"), b"stored")
            return True
        return False

    await eventually(there, what="it takes messages again")
    assert await config(bus, stream) == before


async def test_a_stream_that_cannot_be_put_right_is_told(bus: Bus) -> None:
    await bus._jetstream.api("STREAM.DELETE.KGENTS_RUNS")
    await bus._jetstream.api(
        "STREAM.CREATE.KGENTS_RUNS", {"name": "KGENTS_RUNS", "subjects": ["kgents.runs"], "storage": "memory"}
    )
    with pytest.raises(Exception, match="refused the stream KGENTS_RUNS"):
        await bus.ensure_streams()
