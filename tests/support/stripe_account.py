"""A Stripe account in memory: its customers, its invoices with their states, and the events that tell of these.

What Stripe does of its own accord is left out: no draft is finalised because of auto_advance, nothing is collected, no
mail is sent.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from kgents.clock import SECOND, Clock
from tests.support.stripe_parameters import Refused, missing

API_VERSION = "2026-10-28.endive"
DAY = 86_400  # seconds
MOST_LINES = 250  # https://docs.stripe.com/changelog/2016-02-22/no-more-than-250-invoice-items
INLINE_LINES = 10  # that an invoice shows of its lines

Object = dict[str, Any]

NOBODY: Mapping[str, str | None] = {"id": None, "idempotency_key": None}
"""What caused an event that no request caused."""

_NEW_INVOICE: Object = {
    "object": "invoice",
    "amount_paid": 0,
    "amount_paid_off_stripe": 0,
    "attempt_count": 0,
    "attempted": False,
    "billing_reason": "manual",
    "effective_at": None,
    "hosted_invoice_url": None,
    "invoice_pdf": None,
    "livemode": False,
    "number": None,
    "status": "draft",
    "status_transitions": dict.fromkeys(("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at")),
}


class Account:
    """One method for each request, which takes its parameters by their names and raises Refused; besides, what tests do
    to an account (`pay`, `void`, `mark_uncollectible`). `customers` and `invoices` are by id, oldest first.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.search_lag = 0.0
        """For how many seconds a search does not find a new customer."""
        self.least_due = 1
        """An invoice of less, in minor units, is paid once it is finalised: its amount goes to the next one."""
        self.customers: dict[str, Object] = {}
        self.deleted_customers: set[str] = set()
        self.invoices: dict[str, Object] = {}
        self.events: list[Object] = []
        self._lines: dict[str, list[Object]] = {}
        self._lock = threading.RLock()
        self._cause = NOBODY

    def pay(self, invoice: str) -> Object:
        """Pay it by card, as a customer does on the invoice's page."""
        with self._lock:
            return deepcopy(self._paid(self._payable(invoice), attempted=True, attempt_count=1))

    def void(self, invoice: str) -> Object:
        """Void it in the dashboard."""
        with self._lock:
            return deepcopy(self.void_invoice(invoice))

    def mark_uncollectible(self, invoice: str) -> Object:
        """Give it up in the dashboard."""
        with self._lock:
            return deepcopy(self.mark_invoice_uncollectible(invoice))

    def edit(self, invoice: str) -> Object:
        """Change its memo in the dashboard, which changes nothing of what it comes to."""
        with self._lock:
            found = self._invoice(invoice, "invoice")
            self._tell("updated", found)
            return deepcopy(found)

    def create_customer(
        self,
        name: str | None = None,
        description: str | None = None,
        email: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Object:
        customer: Object = {
            "id": _new_id("cus"),
            "object": "customer",
            "created": self._now(),
            "description": description,
            "email": email,
            "invoice_prefix": secrets.token_hex(4).upper(),
            "livemode": False,
            "metadata": dict(metadata or {}),
            "name": name,
            "next_invoice_sequence": 1,
        }
        self.customers[customer["id"]] = customer
        return customer

    def delete_customer(self, customer: str) -> Object:
        """Its invoices stay, and so does a trace of it: https://docs.stripe.com/api/customers/delete."""
        self._customer(customer, "id", 404)
        self.deleted_customers.add(customer)
        return self.retrieve_customer(customer)

    def retrieve_customer(self, customer: str) -> Object:
        if customer in self.deleted_customers:
            return {"id": customer, "object": "customer", "deleted": True}
        return self.customers.get(customer) or missing("customer", customer, "id", 404)

    def _customer(self, customer: str, parameter: str, status: int = 400) -> Object:
        found = None if customer in self.deleted_customers else self.customers.get(customer)
        return found or missing("customer", customer, parameter, status)

    def list_customers(self, **page: Any) -> Object:
        found = [each for each in reversed(self.customers.values()) if each["id"] not in self.deleted_customers]
        return _listed("/v1/customers", "customer", found, **page)

    def search_customers(self, query: tuple[str, str], page: int = 0, limit: int = 10) -> Object:
        key, value = query
        found = [
            customer
            for customer in reversed(self.customers.values())
            if customer["metadata"].get(key) == value
            and customer["created"] + self.search_lag <= self._now()
            and customer["id"] not in self.deleted_customers
        ]
        has_more = len(found) > page + limit
        return {
            "object": "search_result",
            "url": "/v1/customers/search",
            "data": found[page : page + limit],
            "has_more": has_more,
            "next_page": str(page + limit) if has_more else None,
        }

    def create_invoice(
        self,
        customer: str,
        currency: str = "usd",
        collection_method: str = "charge_automatically",
        days_until_due: int | None = None,
        auto_advance: bool = False,
        pending_invoice_items_behavior: str = "exclude",
        description: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Object:
        owner, now = self._customer(customer, "customer"), self._now()
        if collection_method == "send_invoice":
            if days_until_due is None:
                raise Refused(
                    "If invoice collection method is 'send_invoice', you must specify 'due_date' or 'days_until_due'."
                )
            if not owner["email"]:
                raise Refused(
                    "Missing email. In order to create invoices that are sent to the customer, the customer must have "
                    "a valid email."
                )
        elif days_until_due is not None:
            raise Refused(
                "You can only specify 'due_date' or 'days_until_due' if invoice collection method is 'send_invoice'."
            )
        invoice = deepcopy(_NEW_INVOICE) | {
            "id": _new_id("in"),
            "auto_advance": auto_advance,
            "collection_method": collection_method,
            "created": now,
            "currency": currency,
            "customer": customer,
            "customer_email": owner["email"],
            "customer_name": owner["name"],
            "description": description,
            "due_date": None if days_until_due is None else now + days_until_due * DAY,
            "metadata": dict(metadata or {}),
            "period_end": now,
            "period_start": now,
        }
        self.invoices[invoice["id"]], self._lines[invoice["id"]] = invoice, []
        self._sum_up(invoice)
        self._tell("created", invoice)
        return invoice

    def retrieve_invoice(self, invoice: str) -> Object:
        return self._invoice(invoice, "invoice")

    def list_invoices(self, customer: str | None = None, status: str | None = None, **page: Any) -> Object:
        if customer is not None and customer not in self.customers:
            missing("customer", customer, "customer")
        found = (
            invoice
            for invoice in reversed(self.invoices.values())
            if customer in (None, invoice["customer"]) and status in (None, invoice["status"])
        )
        return _listed("/v1/invoices", "invoice", found, **page)

    def add_lines(
        self, invoice: str, lines: Sequence[Object], invoice_metadata: Mapping[str, str] | None = None
    ) -> Object:
        draft, there = self._invoice(invoice, "invoice"), self._lines[invoice]
        if draft["status"] != "draft":
            raise Refused("Invalid invoice: This invoice is no longer editable", code="invoice_not_editable")
        if len(there) + len(lines) > MOST_LINES:
            raise Refused(f"An invoice can have up to {MOST_LINES} items.", param="lines")
        now = self._now()
        there += [
            {
                "id": _new_id("il"),
                "object": "line_item",
                "amount": line["amount"],
                "currency": draft["currency"],
                "description": line.get("description"),
                "invoice": invoice,
                "livemode": False,
                "metadata": line.get("metadata", {}),
                "period": line.get("period", {"start": now, "end": now}),
                "quantity": 1,
                "subtotal": line["amount"],
            }
            for line in lines
        ]
        draft["metadata"] |= invoice_metadata or {}
        self._sum_up(draft)
        return draft

    def list_lines(self, invoice: str, **page: Any) -> Object:
        return _listed(self._invoice(invoice, "invoice")["lines"]["url"], "line item", self._lines[invoice], **page)

    def finalize_invoice(self, invoice: str, auto_advance: bool | None = None) -> Object:
        draft, now = self._invoice(invoice, "id"), self._now()
        if draft["status"] != "draft":
            raise Refused("This invoice is already finalized, you can't re-finalize a non-draft invoice.")
        customer = self.customers[draft["customer"]]
        due = draft["total"] if draft["total"] >= max(self.least_due, 1) else 0
        page = f"https://invoice.stripe.com/i/acct_fake/test_{secrets.token_urlsafe(24)}"
        draft |= {
            "amount_due": due,
            "amount_remaining": due,
            "auto_advance": draft["auto_advance"] if auto_advance is None else auto_advance,
            "effective_at": now,
            "hosted_invoice_url": page,
            "invoice_pdf": f"{page}/pdf",
            "number": f"{customer['invoice_prefix']}-{customer['next_invoice_sequence']:04}",
        }
        customer["next_invoice_sequence"] += 1
        self._enter(draft, "open" if due else "paid", "finalized_at", *(() if due else ("paid_at",)))
        self._tell("finalized", draft)
        if not due:
            self._tell("paid", draft)
        return draft

    def pay_invoice(self, invoice: str, paid_out_of_band: bool = False) -> Object:
        found = self._payable(invoice)
        if not paid_out_of_band:
            raise Refused(
                "There is no `default_payment_method` set on this Customer or Invoice. Please set one by updating the "
                "Customer or Invoice with a `default_payment_method`."
            )
        return self._paid(found, amount_paid_off_stripe=found["amount_due"])

    def void_invoice(self, invoice: str) -> Object:
        found = self._invoice(invoice, "id")
        if found["status"] == "paid":
            raise Refused("Invoices with `paid` payments cannot be voided.")
        _require(found, "open", "uncollectible")
        self._enter(found, "void", "voided_at")
        self._tell("voided", found)
        return found

    def mark_invoice_uncollectible(self, invoice: str) -> Object:
        found = self._invoice(invoice, "id")
        if found["status"] == "uncollectible":
            raise Refused("This invoice has already been marked uncollectible.")
        _require(found, "open")
        self._enter(found, "uncollectible", "marked_uncollectible_at")
        self._tell("marked_uncollectible", found)
        return found

    def delete_invoice(self, invoice: str) -> Object:
        found = self._invoice(invoice, "invoice")
        if found["status"] != "draft":
            raise Refused("You can only delete draft invoices.")
        del self.invoices[invoice], self._lines[invoice]
        self._tell("deleted", found)
        return {"id": invoice, "object": "invoice", "deleted": True}

    def _payable(self, invoice: str) -> Object:
        found = self._invoice(invoice, "id")
        if found["status"] == "paid":
            raise Refused("Invoice is already paid")
        _require(found, "open", "uncollectible")
        return found

    def _paid(self, invoice: Object, **how: Any) -> Object:
        invoice |= {"amount_paid": invoice["amount_due"], "amount_remaining": 0, **how}
        self._enter(invoice, "paid", "paid_at")
        self._tell("paid", invoice)
        return invoice

    def _invoice(self, invoice: str, param: str) -> Object:
        return self.invoices.get(invoice) or missing("invoice", invoice, param, 404)

    def _enter(self, invoice: Object, status: str, *moments: str) -> None:
        invoice["status"] = status
        invoice["status_transitions"] |= dict.fromkeys(moments, self._now())

    def _sum_up(self, invoice: Object) -> None:
        lines = self._lines[invoice["id"]]
        total = sum(line["amount"] for line in lines)
        invoice |= {
            "amount_due": max(total, 0),
            "amount_remaining": max(total, 0),
            "lines": _listed(f"/v1/invoices/{invoice['id']}/lines", "line item", lines, limit=INLINE_LINES),
            "subtotal": total,
            "total": total,
        }

    def _tell(self, what: str, invoice: Object) -> None:
        event = {
            "id": _new_id("evt"),
            "object": "event",
            "api_version": API_VERSION,
            "created": self._now(),
            "data": {"object": deepcopy(invoice)},
            "livemode": False,
            "pending_webhooks": 1,
            "request": dict(self._cause),
            "type": f"invoice.{what}",
        }
        self.events.append(event)

    def _now(self) -> int:
        return self.clock.now() // SECOND


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


def _require(invoice: Object, *statuses: str) -> None:
    # https://docs.stripe.com/invoicing/integration/workflow-transitions
    if invoice["status"] not in statuses:
        raise Refused("You can only pass in open invoices. This invoice isn't open.")


def _listed(
    url: str, what: str, objects: Iterable[Object], *, limit: int = 10, starting_after: str | None = None
) -> Object:
    found = list(objects)
    if starting_after is not None:
        ids = [each["id"] for each in found]
        if starting_after not in ids:
            missing(what, starting_after, "starting_after")
        found = found[ids.index(starting_after) + 1 :]
    return {"object": "list", "url": url, "data": found[:limit], "has_more": len(found) > limit}
