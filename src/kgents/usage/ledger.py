"""The usage ledger: reservations before work, usage events with the work, balances in the same transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson
from sqlalchemy import Connection

from kgents.clock import month_of, to_rfc3339
from kgents.errors import QuotaExceeded
from kgents.store import outbox
from kgents.store.bulk import together
from kgents.telemetry.trace_context import headers
from kgents.usage import repository, sums
from kgents.usage.model import NOTHING, Amounts, Balance, UsageEvent
from kgents.usage.repository import Key


class Posting(NamedTuple):
    """What one piece of work does to its tenant's account, in one go.

    `release` of the period `release_period` is what the work had reserved; `reserve` is what its next step may use at
    worst; `events` is what it did use. A posting with a `reserve` that does not fit is refused as a whole only when it
    has no events: what was used is always recorded. the trace `context` goes with the events.
    """

    tenant_id: str
    now: int
    events: Sequence[UsageEvent] = ()
    used: Amounts = NOTHING
    release: Amounts = NOTHING
    release_period: str = ""
    reserve: Amounts = NOTHING
    context: str | None = None


def quota_error(meter: str, balance: Balance, wanted: Amounts) -> QuotaExceeded:
    """The refusal that says which meter, how much is left, and what to do."""
    limit = balance.limits[meter]
    used, reserved, more = (getattr(amounts, meter) for amounts in (balance.used, balance.reserved, wanted))
    return QuotaExceeded(
        f"The monthly quota of {meter} is {limit}: {used} used, {reserved} reserved by running work, and this needs up "
        f"to {more} more. Lower max_tokens, wait for running work or the next month, or ask for a higher quota.",
        meter=meter,
        limit=limit,
        used=used,
        reserved=reserved,
        needed=more,
        period=balance.period,
    )


def post(connection: Connection, postings: Sequence[Posting], *, source: str) -> list[QuotaExceeded | None]:
    """Post a group to the ledger; answers for each posting why its reservation was refused, or None.

    Exact under concurrency: the balances of a group that reserves are locked for the transaction, and postings of one
    group see each other in their order.
    """
    reserving = any(any(posting.reserve) for posting in postings)
    balances = _hold(connection, postings) if reserving else {}
    deltas: dict[Key, tuple[Amounts, Amounts]] = {}
    refusals: list[QuotaExceeded | None] = []
    rows: list[outbox.NewRow] = []
    events: list[UsageEvent] = []
    for posting in postings:
        period = month_of(posting.now)
        if any(posting.release):
            _add(deltas, balances, (posting.tenant_id, posting.release_period), NOTHING, NOTHING.minus(posting.release))
        if posting.events:
            _add(deltas, balances, (posting.tenant_id, period), posting.used, NOTHING)
            events.extend(posting.events)
            rows.append(outbox_row(posting.events, source=source, now=posting.now, context=posting.context))
        refusal = None
        if any(posting.reserve):
            balance = balances.get((posting.tenant_id, period))
            meter = balance.room_for(posting.reserve) if balance else None
            if balance and meter:
                refusal = quota_error(meter, balance, posting.reserve)
            else:
                _add(deltas, balances, (posting.tenant_id, period), NOTHING, posting.reserve)
        refusals.append(refusal)
    with together(connection):
        repository.insert_events(connection, events)
        repository.add_to_balances(connection, deltas)
        sums.add_to_hours(connection, events)
        outbox.add_many(connection, rows)
    return refusals


def _hold(connection: Connection, postings: Sequence[Posting]) -> dict[Key, Balance]:
    """Lock every balance that the group touches, in one order, so that two groups can't wait for each other.

    A month's first posting finds no row to lock; its rows are then made, and locked with the others. Two groups that
    find other rows missing may wait for each other there; the database ends one of them, which is tried again.
    """
    keys = {(posting.tenant_id, month_of(posting.now)) for posting in postings}
    keys |= {(posting.tenant_id, posting.release_period) for posting in postings if any(posting.release)}
    found = repository.hold_balances(connection, keys)
    if len(found) < len(keys):
        repository.ensure_balances(connection, keys)
        found = repository.hold_balances(connection, keys)
    return found


def _add(
    deltas: dict[Key, tuple[Amounts, Amounts]], balances: dict[Key, Balance], key: Key, used: Amounts, reserved: Amounts
) -> None:
    before = deltas.get(key)
    deltas[key] = (before[0].plus(used), before[1].plus(reserved)) if before else (used, reserved)
    balance = balances.get(key)
    if balance is not None:
        balances[key] = Balance(*key, balance.used.plus(used), balance.reserved.plus(reserved), balance.limits)


def outbox_row(events: Sequence[UsageEvent], *, source: str, now: int, context: str | None = None) -> outbox.NewRow:
    """The outbox row of the events of one step: a JSON array of CloudEvents, ready for the meter's batch route. Those
    of a trace that is recorded have CloudEvents' extension for it until they are handed to the meter.
    """
    first = events[0]
    time = to_rfc3339(first.occurred_at)  # one step's events have one time
    more = headers(context)
    return outbox.NewRow(
        tenant_id=first.tenant_id,
        topic="usage",
        message_id=first.event_id,
        payload=orjson.dumps([_cloud_event(event, source, time) | more for event in events]).decode(),
        created_at=now,
    )


def cloud_event(event: UsageEvent, *, source: str) -> dict[str, object]:
    """The event in CloudEvents 1.0 JSON form; (`source`, `id`) is what the meter counts once."""
    return _cloud_event(event, source, to_rfc3339(event.occurred_at))


def _cloud_event(event: UsageEvent, source: str, time: str) -> dict[str, object]:
    return {
        "specversion": "1.0",
        "id": event.event_id,
        "source": source,
        "type": f"kgents.{event.meter}",
        "subject": event.tenant_id,
        "time": time,
        "datacontenttype": "application/json",
        "data": {
            "quantity": event.quantity,
            "agent": event.agent_id,
            "model": event.model,
            "run": event.run_id,
            "estimated": event.estimated,
        },
    }
