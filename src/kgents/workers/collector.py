"""The collector: open invoices -> Stripe, and what became of them there."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from sqlalchemy import Connection

from kgents.billing import invoicing
from kgents.billing.gateway import CustomerGone, Gateway, StripeRefused
from kgents.billing.model import Held, Invoice
from kgents.billing.service import BillingService
from kgents.clock import Clock
from kgents.errors import Unavailable
from kgents.store.engine import Scope, Store
from kgents.telemetry.metrics import Metrics
from kgents.tenants.model import STRIPE

log = structlog.get_logger(__name__)

INTERVAL = 5.0  # seconds
LOOK = 3600.0  # seconds between looks at what Stripe has, for what no webhook told
AGAIN = 600.0  # seconds after which what was refused is tried again
PAGE = 100
AT_ONCE = 4  # invoices, each with one request at a time


class Collector:
    """Several may run, and may be killed at any moment: Stripe has each invoice once."""

    def __init__(self, store: Store, stripe: Gateway, billing: BillingService, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._stripe = stripe
        self._billing = billing
        self._metrics = metrics
        self._clock = clock
        self._places = asyncio.Semaphore(AT_ONCE)
        self._again_at: dict[str, float] = {}

    async def run(self) -> None:
        """Collect until cancelled."""
        look_at = 0.0
        while True:
            try:
                await self.tell()
                await self.step()
                await self.tell()
                if self._clock.monotonic() >= look_at:
                    await self.look()
                    look_at = self._clock.monotonic() + LOOK
            except Unavailable as error:
                log.warning("invoices wait for Stripe", reason=error.detail)
            await asyncio.sleep(INTERVAL)

    async def step(self) -> int:
        """Hand over the open invoices that Stripe does not have; answers how many it took. Raises Unavailable. What
        Stripe refuses, and what is not what the ledger says, is told, and tried again ten minutes later.
        """
        return await self._all(self._hand_over, collected=False)

    async def look(self) -> int:
        """See what became of those that Stripe has and that may be paid still; answers how many. Raises Unavailable."""
        return await self._all(self._see, collected=True)

    async def tell(self) -> None:
        """Tell the metrics how many invoices wait, and for how long. Raises Unavailable."""
        backlog = await self._store.read(Scope.system(), self._billing.uncollected)
        self._metrics.stripe_backlog("invoices", backlog.count, backlog.age(self._clock.now()))

    async def _all(self, work: Callable[[Invoice], Awaitable[Held | None]], *, collected: bool) -> int:
        done, after = 0, ""
        read = partial(self._billing.payable, collected=collected, limit=PAGE)
        while page := await self._store.read(Scope.system(), partial(read, after=after)):
            after = page[-1].invoice_id or ""
            random.shuffle(page)  # so that several collectors have little to do with the same one at the same time
            outcomes = await asyncio.gather(*(self._one(work, each) for each in page), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
                done += outcome
        return done

    async def _one(self, work: Callable[[Invoice], Awaitable[Held | None]], invoice: Invoice) -> int:
        name = invoice.invoice_id or ""
        async with self._places:
            if self._clock.monotonic() < self._again_at.get(name, 0.0):
                return 0
            try:
                held = await work(invoice)
            except StripeRefused as error:
                log.error("an invoice can't be collected", invoice=name, reason=error.detail)
                self._metrics.stripe_refused()
                self._again_at[name] = self._clock.monotonic() + AGAIN
                return 0
            self._again_at.pop(name, None)
            if held is None:
                return 0
            await self._store.write(Scope.system(), partial(self._follow, held=held))
            return 1

    async def _hand_over(self, invoice: Invoice) -> Held | None:
        scope = Scope.tenant(invoice.tenant_id)
        again = partial(self._billing.invoice, tenant_id=invoice.tenant_id, invoice_id=invoice.invoice_id or "")
        now = await self._store.read(scope, again)
        if now.stripe_id is not None or now.status != "open":
            return None  # another collector, or an administrator, was faster
        if await self._store.read(scope, partial(invoicing.differences, invoice=invoice)):
            raise StripeRefused("It is not what the ledger says, and stays here.")
        customer_id = await self._customer(invoice.tenant_id)
        try:
            return await self._stripe.collect(invoice, customer_id)
        except CustomerGone as error:
            log.warning("a tenant becomes another customer", tenant_id=invoice.tenant_id, reason=error.detail)
            forget = partial(self._billing.forget_customer, tenant_id=invoice.tenant_id, customer_id=customer_id)
            await self._store.write(Scope.system(), forget)
            return await self._stripe.collect(invoice, await self._customer(invoice.tenant_id, customer_id))

    async def _see(self, invoice: Invoice) -> Held:
        assert invoice.stripe_id is not None, "Stripe has it"
        held = await self._stripe.get(invoice.stripe_id)
        if held is None:
            raise StripeRefused(f"There is no {invoice.stripe_id} at Stripe.")
        return held

    def _follow(self, connection: Connection, held: Held) -> None:
        self._billing.follow(connection, held, STRIPE)

    async def _customer(self, tenant_id: str, instead_of: str = "") -> str:
        kept, name = await self._store.read(Scope.system(), partial(self._billing.customer, tenant_id=tenant_id))
        if kept is not None:
            return kept
        made = await self._stripe.customer(tenant_id, name, instead_of=instead_of)
        keep = partial(self._billing.keep_customer, tenant_id=tenant_id, customer_id=made)
        await self._store.write(Scope.system(), keep)
        return made
