"""The invoicer: makes each month's invoices when it is over, and tells what today has come to."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

import structlog

from kgents.billing import invoicing, revenue
from kgents.billing.model import Subscription
from kgents.clock import SECOND, Clock, month_bounds
from kgents.errors import Unavailable, Unprocessable
from kgents.store.engine import Scope, Store
from kgents.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

INTERVAL = 60.0  # seconds
SOON = 0.2
SUBSCRIPTIONS = 100  # looked up at once


class Invoicer:
    """Several may run: an invoice is made once, whoever is first, and is the same whoever makes it. `delay` is how many
    seconds after its end a month is left open: what was being recorded then has been recorded.
    """

    def __init__(self, store: Store, metrics: Metrics, clock: Clock, delay: float) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._delay = delay
        self._closed: set[str] = set()

    async def run(self) -> None:
        """Make invoices until cancelled."""
        while True:
            try:
                await self.close()
                await self.tell()
            except Unavailable:
                log.warning("no invoices were made: the database is away")
            await asyncio.sleep(min(INTERVAL, max(self._delay, SOON)))

    async def close(self) -> int:
        """Make the invoices that are due; answers how many. Raises Unavailable."""
        before = self._clock.now() - round(self._delay * SECOND)
        made = 0
        for period in await self._store.read(Scope.system(), partial(invoicing.months, now=before)):
            if period not in self._closed:
                made += await self._close(period, before)
                if month_bounds(period)[1] <= before:
                    self._closed.add(period)  # nobody can be subscribed to what is past
        return made

    async def _close(self, period: str, before: int) -> int:
        look = partial(invoicing.due, period=period, before=before, limit=SUBSCRIPTIONS)
        made, after = 0, ""
        while found := await self._store.read(Scope.system(), partial(look, after=after)):
            for subscription in found:
                made += await self._invoice(subscription, period)
            after = found[-1].subscription_id
        return made

    async def _invoice(self, subscription: Subscription, period: str) -> int:
        scope = Scope.tenant(subscription.tenant_id)
        close = partial(invoicing.close, subscription=subscription, period=period, now=self._clock.now())
        try:
            invoice = await self._store.write(scope, close)
        except Unprocessable as error:  # the others' are made all the same
            log.error("an invoice could not be made", subscription=subscription.subscription_id, reason=error.detail)
            self._metrics.not_invoiced()
            return 0
        if invoice is None:
            return 0
        found = await self._store.read(scope, partial(invoicing.differences, invoice=invoice))
        for each in found:
            log.error(
                "an invoice is not what the ledger says",
                invoice=each.invoice_id,
                what=each.what,
                invoiced=each.invoiced,
                ledger=each.found,
            )
        self._metrics.invoiced(len(found))
        return 1

    async def tell(self) -> None:
        """Tell the metrics what today has come to. Raises Unavailable."""
        now = self._clock.now()
        found: Counter[str] = Counter()
        after = ""
        while page := await self._store.read(Scope.system(), partial(revenue.today, now=now, after=after)):
            for each in page:
                found[each.currency] += each.amount
            after = page[-1].tenant_id
        self._metrics.revenue(found)
