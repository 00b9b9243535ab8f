"""Handing usage events to the meter, and finding the ones that it will not have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from kgents.meter.client import MeterClient, MeterRefused


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that the meter refused for good: the event's id, or what stands for it, and the meter's reason."""

    event_id: str
    reason: str


def count_events(payload: bytes) -> int:
    """How many CloudEvents a JSON array as `usage.ledger` makes it holds, without parsing it.

    Within a JSON text the quotes would be escaped, so nothing that an event says is counted.
    """
    return payload.count(b'"specversion"')


def join(payloads: Sequence[bytes]) -> bytes:
    """Several JSON arrays, none of them empty, as one, without parsing them."""
    return payloads[0] if len(payloads) == 1 else b"[" + b",".join(payload[1:-1] for payload in payloads) + b"]"


def is_array(payload: bytes) -> bool:
    """Whether a payload has the outline of a JSON array that is not empty, so that it can be joined with others."""
    return payload[:1] == b"[" and payload[-1:] == b"]" and len(payload) > 2


async def deliver(meter: MeterClient, payload: bytes) -> list[Refused]:
    """Hand over a JSON array of CloudEvents; what the meter refuses is halved until the events at fault are alone.

    Answers those. They stay in the ledger, and reconcile names them. Raises MeterUnavailable, and then nothing is
    known of any event: hand them over again, the meter counts each once.
    """
    try:
        await meter.ingest(payload)
    except MeterRefused as error:
        return await _divide(meter, payload, error)
    return []


async def _divide(meter: MeterClient, payload: bytes, error: MeterRefused) -> list[Refused]:
    try:
        events = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return [Refused("(not JSON)", error.detail)]
    if not isinstance(events, list) or len(events) < 2:
        return [Refused(_id(events), error.detail)]
    middle = len(events) // 2
    halves = (events[:middle], events[middle:])
    return [refused for half in halves for refused in await deliver(meter, orjson.dumps(half))]


def _id(value: Any) -> str:
    event = value[0] if isinstance(value, list) and value else value
    found = event.get("id") if isinstance(event, dict) else None
    return found[:200] if isinstance(found, str) else "(no event)"
