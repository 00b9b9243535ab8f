"""Plans, subscriptions and invoices: decisions. Each change writes its audit entry in the same transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import Connection

from kgents.billing import repository
from kgents.billing.invoicing import draft
from kgents.billing.model import NEXT, Held, Invoice, InvoiceStatus, MonthRevenue, Plan, Subscription, Terms
from kgents.billing.rules import check_terms
from kgents.clock import Clock, month_of, to_rfc3339
from kgents.errors import Conflict, NotFound
from kgents.ids import is_id, new_id
from kgents.store.outbox import Backlog
from kgents.tenants.audit import AuditService
from kgents.tenants.model import PLATFORM, Actor, Page, TenantUpdate
from kgents.tenants.rules import check_limit
from kgents.tenants.service import TenantService
from kgents.usage.model import METERS


class BillingService:
    """Who pays what. Plans, and whatever names a tenant by its id, are for platform administrators: run these in a
    transaction over all tenants.
    """

    def __init__(self, clock: Clock, tenants: TenantService) -> None:
        self._clock = clock
        self._tenants = tenants
        self._audit = AuditService(clock)

    def create_plan(self, connection: Connection, terms: Terms, actor: Actor) -> Plan:
        """A new plan. Raises Unprocessable, and Conflict where one of this name is offered."""
        plan = Plan(new_id("plan"), check_terms(terms), self._clock.now(), None)
        if not repository.insert_plan(connection, plan):
            raise Conflict(
                f"There is a plan called {terms.name!r}, and plans never change. Archive it first with DELETE "
                "/v1/plans/{plan_id}, or choose another name.",
                code="plan-name-taken",
            )
        self._audit.record(connection, PLATFORM, actor, "plan.create", "plan", plan.plan_id, {"name": terms.name})
        return plan

    def get_plan(self, connection: Connection, plan_id: str) -> Plan:
        """The plan of this id, archived or not. Raises NotFound."""
        plan = repository.plan_by_id(connection, plan_id) if is_id(plan_id, "plan") else None
        if plan is None:
            raise NotFound(f"There is no plan {plan_id[:64]!r}. List them with GET /v1/plans.", code="plan-not-found")
        return plan

    def list_plans(self, connection: Connection, *, after: str = "", limit: int = 20) -> Page[Plan]:
        """Plans in the order of their creation, archived ones too; `after` is the last id of the page before."""
        check_limit(limit)
        found = repository.list_plans(connection, after, limit + 1)
        return Page(found[:limit], len(found) > limit)

    def archive_plan(self, connection: Connection, plan_id: str, actor: Actor) -> Plan:
        """The plan, which nobody can be subscribed to from now on. Who is stays so. Raises NotFound."""
        plan = self.get_plan(connection, plan_id)
        if plan.archived_at is None:
            repository.archive_plan(connection, plan_id, self._clock.now())
            self._audit.record(connection, PLATFORM, actor, "plan.archive", "plan", plan_id, {"name": plan.terms.name})
        return self.get_plan(connection, plan_id)

    def subscribe(self, connection: Connection, tenant_id: str, plan_id: str, actor: Actor) -> Subscription:
        """Put a tenant on a plan from now on, with the plan's quotas instead of its own; a plan that it is on already
        is left as it is. The one before ends, and both are charged for their part of the month.

        Raises NotFound, and Conflict for a plan that is archived, a tenant that was deleted, and the platform's own.
        """
        plan = self.get_plan(connection, plan_id)
        tenant = self._tenants.lock(connection, tenant_id)
        if tenant_id == PLATFORM:
            raise Conflict("The platform's own tenant pays nothing: it has no subscription.", code="tenant-reserved")
        before = repository.open_subscription(connection, tenant_id)
        if before is not None and before.plan_id == plan_id and tenant.status != "deleted":
            return before
        if plan.archived_at is not None:
            raise Conflict(
                f"The plan {plan.terms.name!r} was archived at {to_rfc3339(plan.archived_at)}. Choose one of GET "
                "/v1/plans that is not.",
                code="plan-archived",
            )
        now = self._clock.now()
        repository.end_subscription(connection, tenant_id, now)
        made = Subscription(new_id("sub"), tenant_id, plan_id, plan.terms, now, None)
        repository.insert_subscription(connection, made)
        self._record(connection, made, actor, "create")
        self._entitle(connection, tenant_id, lambda meter: plan.terms.quotas.get(meter), actor)
        return made

    def subscription(self, connection: Connection, tenant_id: str) -> Subscription:
        """The tenant's subscription. Raises NotFound where it has none now."""
        found = repository.open_subscription(connection, tenant_id)
        if found is None:
            raise no_subscription(tenant_id)
        return found

    def unsubscribe(self, connection: Connection, tenant_id: str, actor: Actor) -> Subscription:
        """End the tenant's subscription now; from now on its quotas allow nothing. Raises NotFound."""
        self._tenants.lock(connection, tenant_id)
        ended = self.end(connection, tenant_id, actor)
        if ended is None:
            raise no_subscription(tenant_id)
        self._entitle(connection, tenant_id, lambda _meter: 0, actor)
        return ended

    def end(self, connection: Connection, tenant_id: str, actor: Actor) -> Subscription | None:
        """End the tenant's subscription, if it has one: nothing is charged for it from now on."""
        found = repository.open_subscription(connection, tenant_id)
        if found is None:
            return None
        now = self._clock.now()
        repository.end_subscription(connection, tenant_id, now)
        self._record(connection, found, actor, "end")
        return replace(found, ended_at=now)

    def upcoming(self, connection: Connection, tenant_id: str) -> Invoice:
        """What the month of the tenant's subscription comes to so far. Raises NotFound where it has none now."""
        now = self._clock.now()
        return draft(connection, self.subscription(connection, tenant_id), month_of(now), until=now)

    def invoice(self, connection: Connection, tenant_id: str, invoice_id: str, *, lock: bool = False) -> Invoice:
        """The tenant's invoice of this id. Raises NotFound."""
        known = is_id(invoice_id, "inv")
        found = repository.invoice_by_id(connection, tenant_id, invoice_id, lock=lock) if known else None
        if found is None:
            raise NotFound(
                f"There is no invoice {invoice_id[:64]!r}. List them with GET /v1/invoices.", code="invoice-not-found"
            )
        return found

    def invoices(self, connection: Connection, tenant_id: str, *, after: str = "", limit: int = 20) -> Page[Invoice]:
        """The tenant's invoices, newest first; `after` is the last id of the page before."""
        check_limit(limit)
        found = repository.list_invoices(connection, tenant_id, after, limit + 1)
        return Page(found[:limit], len(found) > limit)

    def revenue(self, connection: Connection, first: str, last: str) -> list[MonthRevenue]:
        """What all tenants' invoices come to: for each month from `first` to `last`, each currency and each status that
        has any. For platform administrators.
        """
        return repository.revenue(connection, first, last)

    def mark(
        self, connection: Connection, tenant_id: str, invoice_id: str, status: InvoiceStatus, actor: Actor
    ) -> Invoice:
        """The invoice, which has now become paid, uncollectible or void. Raises NotFound, and Conflict where it can't
        become that, or where Stripe collects it.
        """
        found = self.invoice(connection, tenant_id, invoice_id, lock=True)
        if found.stripe_id is not None:
            raise Conflict(
                f"Stripe collects the invoice {invoice_id}, as {found.stripe_id}. Mark it there: kgents follows.",
                code="invoice-at-stripe",
            )
        if found.status == status:
            return found
        if status not in NEXT[found.status]:
            allowed = ", ".join(sorted(NEXT[found.status])) or "nothing else"
            raise Conflict(
                f"The invoice {invoice_id} is {found.status}, and can become {allowed}.", code="invoice-status"
            )
        return self._become(connection, found, status, actor)

    def follow(self, connection: Connection, held: Held, actor: Actor) -> Invoice | None:
        """The invoice that Stripe has as `held`, with what Stripe says of it; None where it is no invoice of ours, or
        still a draft.

        Safe any number of times and in any order: an invoice goes on only as NEXT has it.
        """
        found = repository.invoice_by_id(connection, held.tenant_id, held.invoice_id, lock=True)
        if found is None or held.status == "draft":  # of a draft Stripe does not have all yet
            return None
        if (found.stripe_id, found.payment_url) != (held.stripe_id, held.url):
            repository.set_collected(connection, held.tenant_id, held.invoice_id, held.stripe_id, held.url)
            found = replace(found, stripe_id=held.stripe_id, payment_url=held.url)
        if held.status in NEXT[found.status]:
            return self._become(connection, found, held.status, actor)
        return found

    def payable(self, connection: Connection, *, collected: bool, after: str, limit: int) -> list[Invoice]:
        """Invoices of all tenants that may be paid still and that Stripe has, or does not have, in the order of their
        ids, after the given one.
        """
        return repository.payable(connection, collected, after, limit)

    def uncollected(self, connection: Connection) -> Backlog:
        """The open invoices that Stripe does not have yet, and when they were made."""
        return repository.uncollected(connection)

    def customer(self, connection: Connection, tenant_id: str) -> tuple[str | None, str | None]:
        """Under which id Stripe knows a tenant, and the tenant's name; either may be gone, or not be there yet."""
        try:
            name = self._tenants.get(connection, tenant_id).name
        except NotFound:
            name = None
        return repository.customer_of(connection, tenant_id), name

    def keep_customer(self, connection: Connection, tenant_id: str, customer_id: str) -> None:
        """Keep under which id Stripe knows a tenant."""
        repository.keep_customer(connection, tenant_id, customer_id, self._clock.now())

    def forget_customer(self, connection: Connection, tenant_id: str, customer_id: str) -> None:
        """Forget that Stripe knows a tenant under this id."""
        repository.forget_customer(connection, tenant_id, customer_id)

    def _become(self, connection: Connection, found: Invoice, status: InvoiceStatus, actor: Actor) -> Invoice:
        assert found.invoice_id is not None, "a draft is not kept"
        now = self._clock.now()
        repository.set_status(connection, found.tenant_id, found.invoice_id, status, now)
        detail = {"from": found.status, "to": status}
        self._audit.record(connection, found.tenant_id, actor, "invoice.update", "invoice", found.invoice_id, detail)
        return replace(found, status=status, updated_at=now)

    def _entitle(
        self, connection: Connection, tenant_id: str, quota: Callable[[str], int | None], actor: Actor
    ) -> None:
        change = TenantUpdate(quotas={meter: quota(meter) for meter in METERS})
        self._tenants.update(connection, tenant_id, change, actor)

    def _record(self, connection: Connection, subscription: Subscription, actor: Actor, verb: str) -> None:
        self._audit.record(
            connection,
            subscription.tenant_id,
            actor,
            f"subscription.{verb}",
            "subscription",
            subscription.subscription_id,
            {"plan": subscription.plan_id},
        )


def no_subscription(tenant_id: str) -> NotFound:
    """The tenant has no subscription now."""
    return NotFound(
        f"The tenant {tenant_id[:64]!r} has no subscription. An administrator makes one with PUT "
        "/v1/tenants/{tenant_id}/subscription.",
        code="subscription-not-found",
    )
