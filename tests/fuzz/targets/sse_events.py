"""Server-sent events: what is written is read back by the specification's rules, whatever text it holds."""

from __future__ import annotations

import orjson

from kgents.agents.events import RunEvent, load_events
from kgents.api.routes.runs import encode, parse_event_id
from tests.fuzz.values import json_of

SEEDS = [b"hello", b"\x01a\n\ndata: b\r\n\r\n", b'{"text":"\\u2028\\r\\n"}', b"\x05\x09" + bytes(range(64))]


def check(data: bytes) -> None:
    """An event with any JSON in it, over the bus and to a client."""
    value = json_of(data, ["text", "data: x\n\nid: 9\n", "\r", "\u2028", "\x85"])
    event = RunEvent(1 + len(data), "text.delta", {"text": data.decode("utf-8", "replace"), "value": value})
    assert load_events(b"[" + event.dump() + b"]") == [event]
    [(identifier, type_, text)] = _read(encode(event))
    assert parse_event_id(identifier) == event.sequence
    assert type_ == event.type
    assert orjson.loads(text) == event.data


def _read(stream: bytes) -> list[tuple[str, str, str]]:
    """The events of a stream, read as the HTML standard says (its section 9.2.6)."""
    found, identifier, type_, lines = [], "", "", list[str]()
    for line in stream.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line and lines:
            found.append((identifier, type_, "\n".join(lines)))
            type_, lines = "", []
        elif name == "id":
            identifier = value
        elif name == "event":
            type_ = value
        elif name == "data":
            lines.append(value)
    return found
