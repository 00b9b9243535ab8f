"""Errors of the event bus, for an operator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kgents.errors import Unavailable


@contextmanager
def explained() -> Iterator[None]:
    """Say why the bus can't be used: who works on it directly is an operator, and may know."""
    from kgents.bus.model import BusUnavailable

    try:
        yield
    except BusUnavailable as error:
        raise Unavailable(f"The event bus can't be used: {error.why}", code=error.code) from error
