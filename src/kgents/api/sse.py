"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse

PING_SECONDS = 15.0
RETRY_MS = 1000
PING = b": ping\n\n"


def event(data: bytes, *, type_: str = "", id_: str = "") -> bytes:
    """One event on the wire. `data` must be a single line, as JSON is."""
    head = (f"id: {id_}\n" if id_ else "") + (f"event: {type_}\n" if type_ else "")
    return head.encode() + b"data: " + data + b"\n\n"


def retry() -> bytes:
    """The hint to come back, when this process ends a stream that is not at its end."""
    return f"retry: {RETRY_MS}\n\n".encode()


class EventStream(StreamingResponse):
    """A response of events. Tells proxies not to buffer it."""

    media_type = "text/event-stream"

    def __init__(
        self, content: AsyncIterator[bytes], headers: dict[str, str] | None = None, status_code: int = 200
    ) -> None:
        super().__init__(
            content,
            status_code,
            headers={"cache-control": "no-cache, no-store", "x-accel-buffering": "no", **(headers or {})},
        )
