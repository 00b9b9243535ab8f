"""The inbox: what Stripe told by webhook -> what became of invoices."""

from __future__ import annotations

import asyncio
from functools import partial

import structlog
from sqlalchemy import Connection

from kgents.billing import inbox
from kgents.billing.gateway import Gateway, StripeRefused
from kgents.billing.inbox import StripeEvent
from kgents.billing.model import Held
from kgents.billing.service import BillingService
from kgents.clock import Clock
from kgents.errors import Unavailable
from kgents.store.engine import Scope, Store
from kgents.telemetry.metrics import Metrics
from kgents.tenants.model import STRIPE

log = structlog.get_logger(__name__)

INTERVAL = 1.0  # seconds
BACK_OFF = 5.0
TIDY = 3600.0
MOST = 500  # events at once
AT_ONCE = 8  # requests; Stripe takes 25 a second in its test mode (https://docs.stripe.com/rate-limits)


class Inbox:
    """Asks Stripe for each invoice that an event is about, as it is by then: events come late, twice and in any order.
    Several may run, and may be killed at any moment: an event is done in the transaction that writes what it came to.
    """

    def __init__(self, store: Store, stripe: Gateway, billing: BillingService, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._stripe = stripe
        self._billing = billing
        self._metrics = metrics
        self._clock = clock
        self._requests = asyncio.Semaphore(AT_ONCE)
        self._tidy_at = 0.0

    async def run(self) -> None:
        """Look at events until cancelled."""
        while True:
            wait = INTERVAL
            try:
                await self.tell()
                if await self.step():
                    await self.tell()
                await self._tidy()
            except Unavailable as error:
                log.warning("webhooks wait", reason=error.detail)
                wait = BACK_OFF
            await asyncio.sleep(wait)

    async def step(self) -> int:
        """Look at what has come, up to MOST events; answers how many that were. Raises Unavailable, then those that
        could not be looked at stay.
        """
        found = await self._store.read(Scope.system(), partial(inbox.waiting, limit=MOST))
        by_invoice: dict[str, list[StripeEvent]] = {}
        for event in found:
            by_invoice.setdefault(event.stripe_id, []).append(event)
        outcomes = await asyncio.gather(
            *(self._look(stripe_id, events) for stripe_id, events in by_invoice.items()), return_exceptions=True
        )
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        return len(found)

    async def tell(self) -> None:
        """Tell the metrics how many events wait, and for how long. Raises Unavailable."""
        backlog = await self._store.read(Scope.system(), inbox.backlog)
        self._metrics.stripe_backlog("webhooks", backlog.count, backlog.age(self._clock.now()))

    async def _look(self, stripe_id: str, events: list[StripeEvent]) -> None:
        held: Held | None = None
        try:
            async with self._requests:
                held = await self._stripe.get(stripe_id)
        except StripeRefused as error:
            log.error("an invoice that a webhook is about can't be read", stripe=stripe_id, reason=error.detail)
            self._metrics.stripe_refused()
        await self._store.write(Scope.system(), partial(self._settle, held=held, events=events))

    def _settle(self, connection: Connection, held: Held | None, events: list[StripeEvent]) -> None:
        if held is not None:
            self._billing.follow(connection, held, STRIPE)
        inbox.done(connection, events, self._clock.now())

    async def _tidy(self) -> None:
        if self._clock.monotonic() >= self._tidy_at:
            await self._store.write(Scope.system(), partial(inbox.forget, now=self._clock.now()))
            self._tidy_at = self._clock.monotonic() + TIDY
