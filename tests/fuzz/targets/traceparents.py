"""W3C `traceparent`: read only where it is valid, by an independent reading of version 00."""

from __future__ import annotations

from kgents.telemetry import traces
from kgents.telemetry.trace_context import parse

SEEDS = [
    b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-00",
    b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
]


def check(data: bytes) -> None:
    """A header's value, which is then passed on to others."""
    text = data.decode("latin-1")
    parts = text.split("-")
    right = (
        [len(part) for part in parts] == [2, 32, 16, 2]
        and parts[0] == "00"
        and all(set(part) <= set("0123456789abcdef") for part in parts)
        and set(parts[1]) != {"0"}
        and set(parts[2]) != {"0"}
    )
    assert parse(text) == ((parts[1], parts[2]) if right else None)
    with traces.server_span("GET", text):
        passed_on = traces.current()
    assert passed_on is not None
    assert parse(passed_on) is not None
    assert (passed_on == text) == right
