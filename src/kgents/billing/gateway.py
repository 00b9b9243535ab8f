"""Stripe's API, as far as kgents needs it: customers, and invoices whose every line kgents worked out.

Everything may be asked again at any time, also after Stripe has forgotten an idempotency key (it keeps them for a day:
https://docs.stripe.com/api/idempotent_requests): what is there already is looked up before anything is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar, cast

import httpx2
import stripe
from stripe.params import InvoiceAddLinesParamsLine, InvoiceCreateParams, InvoiceListParams

from kgents.billing.model import Held, Invoice, InvoiceStatus, Line
from kgents.clock import SECOND
from kgents.errors import KgentsError, Unavailable, Unprocessable
from kgents.tls import trusted

T = TypeVar("T")

DAYS_UNTIL_DUE = 30
TIMEOUT = 20.0  # seconds for an answer; Stripe's own take a few tenths
PAGE = 100
INVOICE, TENANT = "kgents_invoice", "kgents_tenant"  # what an object at Stripe is, in its metadata
# What Stripe says of a request that is at fault. Whatever else it says, and no answer, is said of Stripe or of the key.
_REFUSALS = (400, 402, 404, 422)
_NO_CUSTOMER = ("resource_missing", "customer")  # https://docs.stripe.com/error-codes


class StripeUnavailable(Unavailable):
    """Stripe can't be used now; trying again may help."""

    code = "stripe-unavailable"

    def __init__(self, why: str) -> None:
        super().__init__(f"Stripe does not answer as it should: {why}. Invoices are kept and sent later.")


class StripeRefused(KgentsError):
    """Stripe will not take this, however often it is sent."""

    code = "stripe-refused"


class CustomerGone(StripeRefused):
    """Stripe has no such customer: it was deleted, or is one of another account, as of a test."""

    def __init__(self, customer_id: str) -> None:
        super().__init__(f"The customer {customer_id} is not at Stripe, or was deleted there.")


class Gateway:
    """A pool of connections to Stripe, for one account."""

    def __init__(self, api_key: str, url: str) -> None:
        """Raises Unprocessable for a URL that can't be used, and as `trusted`."""
        try:
            parsed = httpx2.URL(url)
            if parsed.scheme not in ("http", "https") or not parsed.host:
                raise httpx2.InvalidURL("not an HTTP URL")
        except httpx2.InvalidURL:
            raise Unprocessable(
                "KGENTS_STRIPE_URL can't be used: it must be a URL such as https://api.stripe.com.", code="setting"
            ) from None
        self._http = _Http()
        self._api = stripe.StripeClient(
            api_key, http_client=self._http, base_addresses={"api": url.rstrip("/")}, max_network_retries=0
        ).v1

    async def ping(self) -> None:
        """Ask for something small. Raises StripeUnavailable."""
        try:
            await _asked(self._api.customers.list_async({"limit": 1}))
        except StripeRefused as error:
            raise StripeUnavailable(error.detail) from error

    async def customer(self, tenant_id: str, name: str | None, *, instead_of: str = "") -> str:
        """The id of the customer that a tenant is; it is made where there is none but `instead_of`, which is gone.
        Raises StripeUnavailable and StripeRefused.
        """
        found = await _asked(
            self._api.customers.search_async({"query": f"metadata['{TENANT}']:'{tenant_id}'", "limit": PAGE})
        )
        for each in found.data:  # a search may find for a minute what was deleted
            if each.id != instead_of:
                return each.id
        key = f"kgents-customer-{tenant_id}"
        made = await _asked(
            self._api.customers.create_async(
                {"metadata": {TENANT: tenant_id}, **({"name": name} if name else {})},
                {"idempotency_key": f"{key}-{instead_of}" if instead_of else key},
            )
        )
        return made.id

    async def collect(self, invoice: Invoice, customer_id: str) -> Held:
        """Have Stripe collect an invoice from a customer: charge what it has chosen to pay with, or send it to its
        e-mail address. It has a page on which it can be paid. One that Stripe has already goes on from where it is.

        Raises StripeUnavailable, CustomerGone, and StripeRefused, also where Stripe's total is not the invoice's.
        """
        assert invoice.invoice_id is not None, "a draft is not collected"
        held = await self._find(invoice.invoice_id, customer_id) or await self._create(invoice, customer_id)
        if held.status != "draft":
            return held
        key = f"kgents-{invoice.invoice_id}"
        if held.empty:
            lines = [_line(line) for line in invoice.lines]
            await _asked(
                self._api.invoices.add_lines_async(
                    held.stripe_id, {"lines": lines}, {"idempotency_key": f"{key}-lines"}
                )
            )
        held = _held(await _asked(self._api.invoices.retrieve_async(held.stripe_id)))
        if (held.total, held.currency) != (invoice.total, invoice.currency):
            raise StripeRefused(
                f"The invoice {invoice.invoice_id} is {invoice.total} {invoice.currency}, and {held.stripe_id} is "
                f"{held.total} {held.currency}. It is sent to nobody. Delete it there to have it made again."
            )
        try:
            final = await _asked(
                self._api.invoices.finalize_invoice_async(
                    held.stripe_id, {"auto_advance": True}, {"idempotency_key": f"{key}-finalize"}
                )
            )
        except StripeRefused:  # somebody else may have been faster
            final = await _asked(self._api.invoices.retrieve_async(held.stripe_id))
            if final.status == "draft":
                raise
        return _held(final)

    async def get(self, stripe_id: str) -> Held | None:
        """An invoice as it is now; None where there is none. Raises StripeUnavailable and StripeRefused."""
        try:
            return _held(await _asked(self._api.invoices.retrieve_async(stripe_id)))
        except StripeRefused as error:
            if isinstance(error.__cause__, stripe.InvalidRequestError) and error.__cause__.http_status == 404:
                return None
            raise

    async def _find(self, invoice_id: str, customer_id: str) -> Held | None:
        found: list[Held] = []
        asked: InvoiceListParams = {"customer": customer_id, "limit": PAGE}
        while True:
            try:
                page = await _asked(self._api.invoices.list_async(asked))
            except StripeRefused as error:
                why = error.__cause__
                if isinstance(why, stripe.InvalidRequestError) and (why.code, why.param) == _NO_CUSTOMER:
                    raise CustomerGone(customer_id) from error
                raise
            found += [held for held in map(_held, page.data) if held.invoice_id == invoice_id]
            if not page.has_more or not page.data:
                break
            asked["starting_after"] = page.data[-1].id
        live = [held for held in found if held.status not in ("draft", "void")]
        if len(live) > 1:
            ids = ", ".join(held.stripe_id for held in live)
            raise StripeRefused(f"Stripe has the invoice {invoice_id} more than once: {ids}. Void all but one there.")
        # A process that was killed may have left a second draft. Those are sent to nobody; all go on with the oldest.
        return next(iter([*live, *(held for held in found if held.status == "void"), *reversed(found)]), None)

    async def _create(self, invoice: Invoice, customer_id: str) -> Held:
        chosen = _dict(await _asked(self._api.customers.retrieve_async(customer_id)))
        if chosen.get("deleted"):
            raise CustomerGone(customer_id)
        charged = (chosen.get("invoice_settings") or {}).get("default_payment_method") or chosen.get("default_source")
        # Without an e-mail address nothing can be sent; then it is open on its page, until somebody pays there.
        how: InvoiceCreateParams = (
            {"collection_method": "charge_automatically"}
            if charged or not chosen.get("email")
            else {"collection_method": "send_invoice", "days_until_due": DAYS_UNTIL_DUE}
        )
        made = await _asked(
            self._api.invoices.create_async(
                {
                    **how,
                    "customer": customer_id,
                    "currency": invoice.currency,
                    "auto_advance": False,  # an hour later Stripe would finalize it, whatever had come to be on it
                    "pending_invoice_items_behavior": "exclude",
                    "description": invoice.period,
                    "metadata": {INVOICE: invoice.invoice_id or "", TENANT: invoice.tenant_id},
                },
                {"idempotency_key": f"kgents-{invoice.invoice_id}-create"},
            )
        )
        return _held(made)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.close_async()


async def _asked(answer: Awaitable[T]) -> T:
    """The answer, with Stripe's errors as ours. What they say is Stripe's own text, which holds no key."""
    try:
        return await answer
    except stripe.StripeError as error:
        why = error.user_message or type(error).__name__
        if isinstance(error, stripe.APIConnectionError):
            why = type(error.__cause__).__name__
        # A key that was used with something else: the customer has another way to pay since. The look-up finds it.
        if error.http_status in _REFUSALS and not isinstance(error, stripe.IdempotencyError):
            raise StripeRefused(f"Stripe refused: {why}") from error
        raise StripeUnavailable(f"it answered {error.http_status}, {why}" if error.http_status else why) from error


def _dict(found: stripe.StripeObject | None) -> dict[str, Any]:
    return found.to_dict() if found else {}


def _held(found: stripe.Invoice) -> Held:
    metadata = _dict(found.metadata)
    return Held(
        found.id,
        metadata.get(TENANT, ""),
        metadata.get(INVOICE, ""),
        cast("InvoiceStatus", found.status or "draft"),
        found.total,
        found.currency,
        found.hosted_invoice_url,
        not found.lines.data,
    )


def _line(line: Line) -> InvoiceAddLinesParamsLine:
    """One of ours as one of Stripe's, which has no place for prices such as 3 cents for a million: they are on ours."""
    what = "monthly fee" if line.meter is None else f"{line.quantity:,} {line.meter}"
    included = f", {line.included:,} of them included" if line.included else ""
    return {
        "amount": line.amount,
        "description": f"{line.plan}: {what}{f' of {line.model}' if line.model else ''}{included}",
        "period": {"start": line.start // SECOND, "end": line.end // SECOND},
    }


class _Http(stripe.HTTPClient):
    """Stripe's library over the HTTP client that all of kgents uses, which trusts whom the system trusts."""

    name = "httpx2"

    def __init__(self) -> None:
        super().__init__()
        self._client = httpx2.AsyncClient(timeout=httpx2.Timeout(TIMEOUT, connect=5.0), verify=trusted())

    def sleep_async(self, secs: float) -> Awaitable[None]:
        return asyncio.sleep(secs)

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        try:
            response = await self._client.request(method, url, headers=headers, content=post_data)
        except httpx2.HTTPError as error:  # Stripe's own have no types
            raise stripe.APIConnectionError(type(error).__name__) from error  # type: ignore[no-untyped-call]
        return response.content, response.status_code, response.headers

    async def close_async(self) -> None:
        await self._client.aclose()
