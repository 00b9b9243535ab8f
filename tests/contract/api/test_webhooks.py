"""Stripe collects: from the end of a subscription over Stripe's page and webhooks to an invoice that is paid."""

from __future__ import annotations

from uuid import uuid4

import httpx2
import pytest

from tests.contract.api.conftest import up_on
from tests.support.cli import Cli
from tests.support.refusals import refused
from tests.support.stripe import FakeStripe
from tests.support.tenants import tenant_of
from tests.support.waiting import wait_until

SECRET = "whsec_of_the_tests"
WEBHOOK = "/webhooks/stripe"


@pytest.fixture(scope="module")
def stripe():
    with FakeStripe() as running:
        yield running


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def collecting(request, tmp_path_factory, stripe):
    """A kgents on each database whose invoices Stripe collects."""
    settings = {
        "KGENTS_INVOICE_DELAY": "0",
        "KGENTS_STRIPE_API_KEY": stripe.api_key,
        "KGENTS_STRIPE_URL": stripe.url,
        "KGENTS_STRIPE_WEBHOOK_SECRET": SECRET,
    }
    with up_on(request.param, tmp_path_factory.mktemp("collecting"), settings) as running:
        yield running


@pytest.fixture
def admin(collecting):
    with collecting.admin() as http:
        yield http


@pytest.fixture
def tenant(collecting):
    with tenant_of(collecting) as made:
        yield made


@pytest.fixture
def invoice(admin, tenant):
    """A tenant's invoice, once it is at Stripe."""
    prices = [{"meter": "runs", "model": None, "amount": 250, "per": 1, "included": 0}]
    plan = admin.post("/v1/plans", json={"name": uuid4().hex, "currency": "eur", "prices": prices}).json()
    path = f"/v1/tenants/{tenant.id}/subscription"
    admin.put(path, json={"plan": plan["id"]}).raise_for_status()
    tenant.run("one")
    admin.delete(path).raise_for_status()

    def sent():
        found = tenant.http.get("/v1/invoices").json()["data"]
        return found[0] if found and found[0]["stripe_id"] else None

    return wait_until(sent, seconds=60, what="the invoice is at Stripe")


@pytest.fixture
def tell(collecting, stripe):
    """Has Stripe's events about an invoice come in."""

    def post(invoice):
        for event in list(stripe.events):
            if event["data"]["object"]["id"] == invoice["stripe_id"]:
                body, signature = stripe.signed(event, SECRET)
                httpx2.post(
                    collecting.url + WEBHOOK, content=body, headers={"Stripe-Signature": signature}, trust_env=False
                ).raise_for_status()

    return post


def status(tenant, invoice, wanted):
    def become():
        return tenant.http.get(f"/v1/invoices/{invoice['id']}").json()["status"] == wanted

    wait_until(become, seconds=30, what=f"the invoice is {wanted}")


def test_an_invoice_is_paid_on_stripes_page(stripe, tenant, invoice, tell):
    there = stripe.retrieve_invoice(invoice["stripe_id"])
    assert (there["total"], there["currency"], there["status"]) == (invoice["total"], "eur", "open")
    assert invoice["payment_url"] == there["hosted_invoice_url"]
    stripe.pay(invoice["stripe_id"])
    tell(invoice)
    tell(invoice)
    status(tenant, invoice, "paid")
    found = tenant.http.get("/v1/audit-log", params={"limit": 100}).json()["data"]
    changes = [entry["detail"] for entry in found if entry["action"] == "invoice.update"]
    assert changes == [{"from": "open", "to": "paid"}]


def test_one_that_is_given_up_may_still_be_paid(stripe, tenant, invoice, tell):
    stripe.mark_uncollectible(invoice["stripe_id"])
    tell(invoice)
    status(tenant, invoice, "uncollectible")
    stripe.pay(invoice["stripe_id"])
    tell(invoice)
    status(tenant, invoice, "paid")


def test_what_stripe_collects_is_not_marked_here(admin, tenant, invoice):
    path = f"/v1/tenants/{tenant.id}/invoices/{invoice['id']}"
    assert invoice["stripe_id"] in refused(admin.patch(path, json={"status": "paid"}), 409, "invoice-at-stripe")


@pytest.mark.parametrize(
    ("body", "signature", "code"),
    [
        ("{}", "", "webhook-signature"),
        ("{}", "t=1,v1=00", "webhook-signature"),
        ("{}", "é=\xff", "webhook-signature"),
        ("[" * 100, "t=1,v1=00", "too-deep"),
    ],
)
def test_what_stripe_did_not_sign_is_refused(collecting, body, signature, code):
    headers = {"Stripe-Signature": signature.encode("latin-1")}
    with httpx2.Client(base_url=collecting.url, trust_env=False) as http:
        refused(http.post(WEBHOOK, content=body, headers=headers), 400, code)


def test_an_endless_body_is_not_read(collecting):
    with httpx2.Client(base_url=collecting.url, trust_env=False) as http:
        refused(http.post(WEBHOOK, content=b"x" * 2_000_000), 413)


def test_another_method_is_none(collecting):
    with httpx2.Client(base_url=collecting.url, trust_env=False) as http:
        refused(http.get(WEBHOOK), 405)


def test_where_no_secret_is_set_there_is_no_such_place(up):
    with httpx2.Client(base_url=up.url, trust_env=False) as http:
        refused(http.post(WEBHOOK, content=b"{}", headers={"Stripe-Signature": "t=1,v1=00"}), 404, "no-webhooks")
        refused(http.post(WEBHOOK, content=b"{}"), 400, "webhook-signature")


def test_the_health_page_tells_whether_stripe_answers(stripe, collecting):
    assert collecting.component("stripe") == "connected"
    stripe.stop()
    try:
        wait_until(
            lambda: collecting.component("stripe") == "disconnected", seconds=30, what="Stripe is seen to be away"
        )
        assert httpx2.get(f"{collecting.url}/readyz", trust_env=False).status_code == 200
    finally:
        stripe.start()
    wait_until(lambda: collecting.component("stripe") == "connected", seconds=30, what="Stripe is seen to be there")


def test_the_comparison_names_what_stripe_has_otherwise(collecting, stripe, tenant, invoice, tmp_path):
    cli = Cli(
        tmp_path,
        KGENTS_DATA_DIR=str(collecting.data),
        KGENTS_STRIPE_API_KEY=stripe.api_key,
        KGENTS_STRIPE_URL=stripe.url,
    )
    done = cli("invoice", "reconcile", invoice["period"], "-o", "json")
    assert [each for each in done.json()["differences"] if each["invoice"] == invoice["id"]] == []
    assert "with the ledger and Stripe" in done.stderr
    stripe.void(invoice["stripe_id"])
    done = cli("invoice", "reconcile", invoice["period"], "-o", "json")
    assert done.status == 1
    assert {"tenant": tenant.id, "invoice": invoice["id"], "what": "status", "invoiced": "open", "found": "void"} in (
        done.json()["differences"]
    )
