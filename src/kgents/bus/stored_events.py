"""The run events that the bus still has: reading them, and erasing them from its files."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator

from nats.aio.client import Client

from kgents.bus.admin import NO_MESSAGE, api
from kgents.bus.streams import EVENTS_STREAM, EVENTS_SUBJECT

AT_ONCE = 32  # runs that are erased at the same time


async def runs_with_events(client: Client) -> AsyncIterator[list[str]]:
    """The ids of all runs that the bus has events of, in their order and a part at a time. Raises BusUnavailable.

    The server counts from the first run, and those before may be erased, or be too old, between two of its answers.
    So each answer must begin with a run that is known already: what follows it was not passed over.
    """
    last, offset = "", 0
    while True:
        request = {"subjects_filter": f"{EVENTS_SUBJECT}.*", "offset": offset}
        found = await api(client, f"STREAM.INFO.{EVENTS_STREAM}", request)
        subjects = found.get("state", {}).get("subjects") or {}
        ids = sorted(subject.rpartition(".")[2] for subject in subjects)
        if offset and (not ids or ids[0] > last):
            offset //= 2
            continue
        if new := [run_id for run_id in ids if run_id > last]:
            yield new
            last = new[-1]
        if offset + len(ids) >= found.get("total", 0):
            return
        offset += len(ids) - 1


async def events_of(client: Client, run_id: str) -> AsyncIterator[tuple[int, bytes]]:
    """A run's messages in order, each with its place in the stream. Raises BusUnavailable."""
    subject, sequence = f"{EVENTS_SUBJECT}.{run_id}", 1
    while True:
        request = {"seq": sequence, "next_by_subj": subject}
        found = await api(client, f"STREAM.MSG.GET.{EVENTS_STREAM}", request, none=NO_MESSAGE)
        if "message" not in found:
            return
        message = found["message"]
        yield message["seq"], base64.b64decode(message.get("data", ""))
        sequence = message["seq"] + 1


async def erase_events(client: Client, run_ids: list[str]) -> int:
    """Delete all messages of these runs and have the server overwrite them in its files; answers how many there were.

    A purge would leave their bytes in the file until the server writes that anew. Raises BusUnavailable.
    """
    gate = asyncio.Semaphore(AT_ONCE)

    async def erase(run_id: str) -> int:
        erased = 0
        async with gate:
            async for sequence, _ in events_of(client, run_id):
                request = {"seq": sequence, "no_erase": False}
                await api(client, f"STREAM.MSG.DELETE.{EVENTS_STREAM}", request, none=NO_MESSAGE)
                erased += 1
        return erased

    return sum(await asyncio.gather(*map(erase, run_ids)))
