"""The streams as they are asked for."""

from __future__ import annotations

from typing import Any

import pytest

from kgents.bus.streams import definitions


def by_name(replicas: int) -> dict[str, dict[str, Any]]:
    return {definition["name"]: definition for definition in definitions(replicas)}


@pytest.mark.parametrize("replicas", [1, 3])
def test_every_stream_has_the_replicas(replicas: int) -> None:
    assert {definition["num_replicas"] for definition in definitions(replicas)} == {replicas}


def test_one_server_writes_events_behind() -> None:
    events = by_name(1)["KGENTS_EVENTS"]
    assert (events["storage"], events["persist_mode"]) == ("file", "async")


def test_several_servers_keep_events_in_memory() -> None:
    events = by_name(3)["KGENTS_EVENTS"]
    assert (events["storage"], "persist_mode" in events) == ("memory", False)


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("name", ["KGENTS_USAGE", "KGENTS_RUNS"])
def test_queues_are_never_written_behind(name: str, replicas: int) -> None:
    queue = by_name(replicas)[name]
    assert (queue["storage"], "persist_mode" in queue) == ("file", False)
