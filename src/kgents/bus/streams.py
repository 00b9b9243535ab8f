"""The three streams, and the subjects that are broadcast without being stored."""

from __future__ import annotations

from typing import Any

from kgents.bus.jetstream import ApiError, JetStream
from kgents.bus.model import BusUnavailable

USAGE_STREAM, USAGE_SUBJECT = "KGENTS_USAGE", "kgents.usage"
RUNS_STREAM, RUNS_SUBJECT = "KGENTS_RUNS", "kgents.runs"
EVENTS_STREAM, EVENTS_SUBJECT = "KGENTS_EVENTS", "kgents.events"
STREAMS = {USAGE_SUBJECT: USAGE_STREAM, RUNS_SUBJECT: RUNS_STREAM, EVENTS_SUBJECT: EVENTS_STREAM}
LIVE_SUBJECT = "kgents.live"
CONTROL_SUBJECT = "kgents.control"

_SECOND = 1_000_000_000
_MIB = 1024 * 1024
_IN_USE_WITH_OTHER_CONFIGURATION = 10058


def definitions(replicas: int) -> list[dict[str, Any]]:
    """The streams as JetStream's API takes them (durations in nanoseconds).

    Usage and queued runs are on disk before they are acknowledged (where the server has `sync_interval: always`) and
    leave the stream when a consumer acknowledges them. Run events are a convenience for those who watch, for a day:
    one server writes them behind; several keep them in memory, since a replicated stream can't be written behind.
    Each event is sent on to `kgents.live.<run id>` once it is stored, with its sequence and the one before it.
    """
    queue = {
        "storage": "file",
        "retention": "workqueue",
        "discard": "new",
        "duplicate_window": 120 * _SECOND,
        "num_replicas": replicas,
    }
    events = {
        "name": EVENTS_STREAM,
        "subjects": [f"{EVENTS_SUBJECT}.*"],
        "retention": "limits",
        "discard": "old",
        "max_age": 86_400 * _SECOND,
        # Publishers of events are fenced by sequence, which also stops repeats: the window only costs memory.
        "duplicate_window": 10 * _SECOND,
        "num_replicas": replicas,
        "allow_direct": True,
        "republish": {"src": f"{EVENTS_SUBJECT}.*", "dest": LIVE_SUBJECT + ".{{wildcard(1)}}"},
    }
    if replicas == 1:
        events |= {"storage": "file", "persist_mode": "async", "max_bytes": 512 * _MIB}
    else:
        events |= {"storage": "memory", "max_bytes": 256 * _MIB}
    return [
        {"name": USAGE_STREAM, "subjects": [USAGE_SUBJECT], **queue},
        {"name": RUNS_STREAM, "subjects": [RUNS_SUBJECT], **queue},
        events,
    ]


async def ensure_streams(jetstream: JetStream, replicas: int) -> None:
    """Create what is missing and update what differs. Raises BusUnavailable where the server can't or won't."""
    for definition in definitions(replicas):
        name = definition["name"]
        try:
            try:
                await jetstream.api(f"STREAM.CREATE.{name}", definition)
            except ApiError as error:
                if error.err_code != _IN_USE_WITH_OTHER_CONFIGURATION:
                    raise
                await jetstream.api(f"STREAM.UPDATE.{name}", definition)
        except ApiError as error:
            raise BusUnavailable(
                f"the NATS server refused the stream {name} with {replicas} replica(s) ({error}). If it exists with "
                f"settings that can't be changed, empty it and delete it (nats stream rm {name})."
            ) from error
