"""What processes tell each other without keeping it: that the outbox has something, that a run is to end.

Nothing depends on these arriving: the outbox is polled, and requests to cancel are recorded. They make it quick.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from kgents.bus.nats import Bus
from kgents.errors import Unavailable

OUTBOX = "kgents.control.outbox"
CANCEL = "kgents.control.cancel"


async def nudge(bus: Bus) -> None:
    """Tell the relay that the outbox has something."""
    await _tell(bus, OUTBOX, b"")


async def request_cancel(bus: Bus, run_id: str) -> None:
    """Tell whichever process carries the run out that it is to end."""
    await _tell(bus, CANCEL, run_id.encode())


async def cancel_requests(bus: Bus) -> AsyncIterator[str]:
    """The ids of runs that are to end, as the requests come in."""
    async for message in bus.listen(CANCEL):
        yield message.data.decode("ascii", "replace")


async def _tell(bus: Bus, subject: str, payload: bytes) -> None:
    try:
        await bus.broadcast(subject, payload)
    except Unavailable:
        return
