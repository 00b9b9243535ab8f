"""What Stripe tells by webhook: whether it was Stripe who told it, and what has not been looked at yet."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import orjson
import sqlalchemy as sa
from sqlalchemy import Connection

from kgents.clock import SECOND
from kgents.errors import InvalidRequest
from kgents.store.outbox import Backlog
from kgents.store.tables import stripe_events
from kgents.store.upsert import insert
from kgents.tenants.model import PLATFORM

TOLERANCE = 300 * SECOND
KEPT = 90 * 86_400 * SECOND  # Stripe sends an event again for three days, and by hand for thirty
_LONGEST = 255


@dataclass(frozen=True, slots=True)
class StripeEvent:
    """An event about an invoice. What the invoice is like is not taken from it: events come in any order."""

    event_id: str
    type: str
    stripe_id: str


def verify(body: bytes, signature: str, secret: str, now: int) -> StripeEvent | None:
    """The event, once it is certain that whoever knows the secret sent it within five minutes of now, before or after;
    None for one that is not about an invoice. Raises InvalidRequest.

    https://docs.stripe.com/webhooks/signature. While a secret is being replaced there are several signatures.
    """
    parts = [part.strip().partition("=") for part in signature.split(",")]
    times = [value for name, _, value in parts if name == "t"]
    if len(times) != 1 or not (times[0].isascii() and times[0].isdigit() and len(times[0]) < 16):
        raise _refused("There is no Stripe-Signature such as t=1767225600,v1=...")
    expected = hmac.new(secret.encode(), f"{times[0]}.".encode() + body, hashlib.sha256).hexdigest().encode()
    given = [value.encode() for name, _, value in parts if name == "v1"]
    if not any(hmac.compare_digest(expected, each) for each in given):
        raise _refused("The Stripe-Signature is not of this body and of this endpoint's secret.")
    if abs(int(times[0]) * SECOND - now) > TOLERANCE:
        raise _refused("The Stripe-Signature was made more than five minutes from now. Check the clocks.")
    try:
        event = orjson.loads(body)
        about = event["data"]["object"]
        if about.get("object") != "invoice":
            return None
        found = StripeEvent(event["id"], event["type"], about["id"])
        if not all(isinstance(text, str) and 0 < len(text) <= _LONGEST for text in astuple(found)):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidRequest("The body is no event of Stripe's.", code="webhook-body") from None
    return found


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(why, code="webhook-signature")


def put(connection: Connection, event: StripeEvent, now: int) -> bool:
    """Keep an event (in a transaction over all tenants); False where it is there already."""
    row = {
        "event_id": event.event_id,
        "tenant_id": PLATFORM,
        "type": event.type,
        "stripe_id": event.stripe_id,
        "received_at": now,
    }
    statement = insert(connection, stripe_events).values(row).on_conflict_do_nothing()
    return connection.execute(statement.returning(stripe_events.c.event_id)).first() is not None


def waiting(connection: Connection, limit: int) -> list[StripeEvent]:
    """Events (in a transaction over all tenants) that have not been looked at, oldest first."""
    columns = stripe_events.c
    statement = (
        sa.select(columns.event_id, columns.type, columns.stripe_id)
        .where(sa.text("done_at IS NULL"))
        .order_by(columns.received_at, columns.event_id)
        .limit(limit)
    )
    return [StripeEvent(*row) for row in connection.execute(statement)]


def backlog(connection: Connection) -> Backlog:
    """The events (in a transaction over all tenants) that wait."""
    statement = sa.select(sa.func.count(), sa.func.min(stripe_events.c.received_at))
    return Backlog(*connection.execute(statement.where(sa.text("done_at IS NULL"))).one())


def done(connection: Connection, events: Sequence[StripeEvent], now: int) -> None:
    """Write that events (in a transaction over all tenants) have been looked at."""
    connection.execute(
        sa.update(stripe_events)
        .where(stripe_events.c.event_id.in_([event.event_id for event in events]))
        .values(done_at=now)
    )


def forget(connection: Connection, now: int) -> int:
    """Drop events (in a transaction over all tenants) that were looked at long ago; answers how many."""
    return connection.execute(sa.delete(stripe_events).where(stripe_events.c.done_at < now - KEPT)).rowcount
