"""Reading server-sent events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx2


class Event(NamedTuple):
    """A server-sent event; `data` is decoded."""

    id: str
    type: str
    data: Any


def read_events(response: httpx2.Response) -> Iterator[Event]:
    """The events of a streaming response, as they come."""
    id_, type_, data = "", "message", ""
    for line in response.iter_lines():
        field, _, value = line.partition(": ")
        if field == "id":
            id_ = value
        elif field == "event":
            type_ = value
        elif field == "data":
            data = value
        elif line == "" and data:
            yield Event(id_, type_, json.loads(data))
            id_, type_, data = "", "message", ""
