"""Spans of messages on the bus, by OpenTelemetry's conventions for messaging."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from kgents.telemetry import traces
from kgents.telemetry.trace_context import contexts_in, distinct
from kgents.telemetry.traces import UNTRACED, Kind

MOST_LINKS = 128  # the SDK's own limit


def publish(subject: str, messages: int = 1, contexts: Iterable[str] = ()) -> AbstractContextManager[object]:
    """The sending of messages to the bus, until it has stored them. `contexts` are those of the work that they tell of,
    where the sender is not within it.
    """
    if not traces.is_on():
        return UNTRACED
    return _batch("publish", "send", "PRODUCER", subject, messages, contexts)


def process(subject: str, messages: int = 1, contexts: Iterable[str] = ()) -> AbstractContextManager[object]:
    """The handling of messages from the bus, in the traces of the work that they tell of."""
    if not traces.is_on():
        return UNTRACED
    return _batch("process", "process", "CONSUMER", subject, messages, contexts)


def contexts_of(payloads: Iterable[bytes]) -> list[str]:
    """The trace contexts that messages carry, if this process records traces."""
    return [context for payload in payloads for context in contexts_in(payload)] if traces.is_on() else []


@contextmanager
def _batch(name: str, type_: str, kind: Kind, subject: str, messages: int, contexts: Iterable[str]) -> Iterator[object]:
    """One span for the batch, and, as it may tell of several traces, one in each of them that is linked to it."""
    attributes = {
        "messaging.system": "nats",
        "messaging.operation.name": name,
        "messaging.operation.type": type_,
        "messaging.destination.name": subject,
        "messaging.batch.message_count": messages if messages > 1 else None,
    }
    found = distinct(contexts, MOST_LINKS)
    name = f"{name} {subject}"
    if len(found) < 2:
        with traces.span(name, kind, found[0] if found else None, attributes) as span:
            yield span
        return
    with traces.span(name, kind, None, attributes, links=found) as span, ExitStack() as parts:
        own = traces.current()
        for context in found:
            part = traces.begin(name, kind, context, attributes, links=[own] if own else ())
            parts.enter_context(traces.ending(part))
        yield span
