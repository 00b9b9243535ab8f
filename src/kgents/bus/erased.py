"""The bus's list of erased tenants: it outlives the database, should that go back to a moment before an erasure.

A stream of its own, with one message a tenant, for ever. Only the commands that erase make it and write to it.
"""

from __future__ import annotations

import base64

import orjson
from nats.aio.client import Client

from kgents.bus.admin import NO_MESSAGE, api, info
from kgents.bus.model import BusUnavailable
from kgents.bus.streams import USAGE_STREAM

STREAM, SUBJECT = "KGENTS_ERASED", "kgents.erased"


async def remember(client: Client, tenant_id: str, at: int) -> None:
    """Put a tenant on the list, with the time (microseconds); it is on the servers' disks on return.

    Raises BusUnavailable.
    """
    if "config" not in await info(client, STREAM):
        await _make(client)
    payload = orjson.dumps({"tenant_id": tenant_id, "erased_at": at})
    answer = orjson.loads((await client.request(f"{SUBJECT}.{tenant_id}", payload, timeout=5)).data)
    if "error" in answer:
        raise BusUnavailable(f"the list of erased tenants was not written ({answer['error'].get('description')}).")


async def remembered(client: Client) -> dict[str, int]:
    """The tenants on the list, each with the time of its erasure (microseconds). Raises BusUnavailable."""
    found: dict[str, int] = {}
    sequence = 1
    while "config" in await info(client, STREAM):
        request = {"seq": sequence, "next_by_subj": f"{SUBJECT}.*"}
        answer = await api(client, f"STREAM.MSG.GET.{STREAM}", request, none=NO_MESSAGE)
        if "message" not in answer:
            break
        kept = orjson.loads(base64.b64decode(answer["message"]["data"]))
        found[kept["tenant_id"]] = kept["erased_at"]
        sequence = answer["message"]["seq"] + 1
    return found


async def _make(client: Client) -> None:
    beside = (await info(client, USAGE_STREAM)).get("config", {})
    definition = {
        "name": STREAM,
        "subjects": [f"{SUBJECT}.*"],
        "storage": "file",
        "retention": "limits",
        "max_msgs_per_subject": 1,
        "num_replicas": beside.get("num_replicas", 1),
    }
    await api(client, f"STREAM.CREATE.{STREAM}", definition)
