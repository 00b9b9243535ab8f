"""The fake Stripe keeps Stripe's promises, as Stripe's own client sees them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
import stripe
from stripe import (
    APIConnectionError,
    APIError,
    AuthenticationError,
    IdempotencyError,
    InvalidRequestError,
    RateLimitError,
    SignatureVerificationError,
    StripeClient,
)

from kgents.clock import ManualClock
from tests.contract.billing.conftest import Connect
from tests.support.stripe import FakeStripe, Request
from tests.support.stripe_account import API_VERSION
from tests.support.stripe_parameters import Refused
from tests.support.waiting import wait_until

NOW = 1_700_000_000
DAY = 86_400


@pytest.fixture
def client(fake: FakeStripe, connect: Connect) -> StripeClient:
    return connect(fake.url, fake.api_key)


def customer(client: StripeClient, tenant: str = "ten_1", **options: Any) -> Any:
    given = {"name": "Acme", "email": "a@example.com", "metadata": {"kgents_tenant": tenant}}
    return client.v1.customers.create(given, options)


def draft(client: StripeClient, *amounts: int, owner: str = "") -> Any:
    owner = owner or customer(client).id
    given = {"customer": owner, "collection_method": "send_invoice", "days_until_due": 30, "currency": "EUR"}
    invoice = client.v1.invoices.create(given)
    lines = [{"amount": amount, "description": f"line {place}"} for place, amount in enumerate(amounts)]
    return client.v1.invoices.add_lines(invoice.id, {"lines": lines}) if lines else invoice


def opened(client: StripeClient, *amounts: int) -> Any:
    return client.v1.invoices.finalize_invoice(draft(client, *(amounts or (100,))).id)


def test_the_clients_version_is_that_of_the_events() -> None:
    assert stripe.api_version == API_VERSION


def test_of_a_deleted_customer_a_trace_and_its_invoices_are_left(client: StripeClient) -> None:
    other, invoice = customer(client).id, opened(client)
    gone = invoice.customer
    assert client.v1.customers.delete(gone).deleted
    assert client.v1.customers.retrieve(gone).deleted
    assert [each.id for each in client.v1.customers.list().data] == [other]
    assert [each.id for each in client.v1.invoices.list({"customer": gone}).data] == [invoice.id]
    for ask in (
        lambda: client.v1.customers.delete(gone),
        lambda: client.v1.invoices.create({"customer": gone, "currency": "eur"}),
    ):
        with pytest.raises(InvalidRequestError, match="No such customer"):
            ask()


def test_customers_are_listed_newest_first_in_pages(client: StripeClient) -> None:
    made = [customer(client, f"ten_{number}").id for number in range(5)]
    first = client.v1.customers.list({"limit": 2})
    assert ([each.id for each in first.data], first.has_more) == (made[:-3:-1], True)
    assert [each.id for each in first.auto_paging_iter()] == made[::-1]
    assert client.v1.customers.retrieve(made[0]).metadata["kgents_tenant"] == "ten_0"


def test_a_search_finds_by_metadata_and_not_at_once(client: StripeClient, fake: FakeStripe, clock: ManualClock) -> None:
    fake.search_lag = 60
    made = customer(client, "it's \\ ten_1").id
    customer(client, "ten_2")
    query = {"query": r"metadata['kgents_tenant']:'it\'s \\ ten_1'"}
    assert client.v1.customers.search(query).data == []
    clock.advance(60)
    assert [each.id for each in client.v1.customers.search(query).data] == [made]


def test_a_search_has_pages_and_a_grammar(client: StripeClient) -> None:
    made = [customer(client).id for _ in range(3)]
    found = client.v1.customers.search({"query": 'metadata["kgents_tenant"]:"ten_1"', "limit": 2})
    assert [each.id for each in found.auto_paging_iter()] == made[::-1]
    with pytest.raises(InvalidRequestError, match="unable to parse"):
        client.v1.customers.search({"query": "metadata[kgents_tenant]=ten_1"})


def test_an_invoice_from_draft_to_paid(client: StripeClient, fake: FakeStripe, clock: ManualClock) -> None:
    owner = customer(client).id
    invoice = client.v1.invoices.create(
        {"customer": owner, "collection_method": "send_invoice", "days_until_due": 30, "metadata": {"a": "1", "b": ""}}
    )
    assert (invoice.status, invoice.total, invoice.currency, invoice.number) == ("draft", 0, "usd", None)
    assert (invoice.metadata.to_dict(), invoice.customer, invoice.hosted_invoice_url) == ({"a": "1"}, owner, None)
    assert (invoice.created, invoice.due_date) == (NOW, NOW + 30 * DAY)
    period = {"start": NOW - 9, "end": NOW}
    invoice = client.v1.invoices.add_lines(
        invoice.id, {"lines": [{"amount": 700, "period": period, "metadata": {"meter": "runs"}}, {"amount": -50}]}
    )
    assert (invoice.total, invoice.amount_due, invoice.amount_remaining) == (650, 650, 650)
    assert [line.amount for line in invoice.lines.data] == [700, -50]
    assert (invoice.lines.data[0].period.to_dict(), invoice.lines.data[0].metadata["meter"]) == (period, "runs")
    clock.advance(5)
    invoice = client.v1.invoices.finalize_invoice(invoice.id)
    assert (invoice.status, invoice.status_transitions.finalized_at) == ("open", NOW + 5)
    assert invoice.number.endswith("-0001")
    assert invoice.hosted_invoice_url.startswith("https://")
    clock.advance(5)
    assert fake.pay(invoice.id)["status"] == "paid"
    invoice = client.v1.invoices.retrieve(invoice.id)
    assert (invoice.status, invoice.amount_paid, invoice.amount_remaining) == ("paid", 650, 0)
    assert (invoice.status_transitions.paid_at, invoice.amount_paid_off_stripe) == (NOW + 10, 0)
    assert opened(client).number != invoice.number


ACTIONS: dict[str, Callable[[StripeClient, str], Any]] = {
    "add lines": lambda client, invoice: client.v1.invoices.add_lines(invoice, {"lines": [{"amount": 1}]}),
    "finalise": lambda client, invoice: client.v1.invoices.finalize_invoice(invoice),
    "pay": lambda client, invoice: client.v1.invoices.pay(invoice, {"paid_out_of_band": True}),
    "void": lambda client, invoice: client.v1.invoices.void_invoice(invoice),
    "give up": lambda client, invoice: client.v1.invoices.mark_uncollectible(invoice),
    "delete": lambda client, invoice: client.v1.invoices.delete(invoice),
}
TAKEN = {
    "draft": {"add lines": "draft", "finalise": "open", "delete": None},
    "open": {"pay": "paid", "void": "void", "give up": "uncollectible"},
    "uncollectible": {"pay": "paid", "void": "void"},
    "paid": {},
    "void": {},
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("status", TAKEN)
def test_every_state_takes_what_it_may(client: StripeClient, fake: FakeStripe, status: str, action: str) -> None:
    invoice = (draft(client, 100) if status == "draft" else opened(client)).id
    if status not in ("draft", "open"):
        {"paid": fake.pay, "void": fake.void, "uncollectible": fake.mark_uncollectible}[status](invoice)
    told = len(fake.events)
    if action not in TAKEN[status]:
        with pytest.raises(InvalidRequestError) as refused:
            ACTIONS[action](client, invoice)
        assert refused.value.http_status == 400
        assert (fake.invoices[invoice]["status"], len(fake.events)) == (status, told)
        return
    answer = ACTIONS[action](client, invoice)
    if action == "delete":
        assert answer.deleted
        with pytest.raises(InvalidRequestError, match="No such invoice"):
            client.v1.invoices.retrieve(invoice)
    else:
        assert answer.status == fake.invoices[invoice]["status"] == TAKEN[status][action]
    assert len(fake.events) == told + (action != "add lines")


def test_the_dashboard_has_the_same_rules(client: StripeClient, fake: FakeStripe) -> None:
    with pytest.raises(Refused, match="isn't open"):
        fake.pay(draft(client, 1).id)


def test_a_request_pays_out_of_band_only(client: StripeClient) -> None:
    invoice = opened(client)
    with pytest.raises(InvalidRequestError, match="default_payment_method"):
        client.v1.invoices.pay(invoice.id)
    assert client.v1.invoices.pay(invoice.id, {"paid_out_of_band": True}).amount_paid_off_stripe == 100


@pytest.mark.parametrize(("amounts", "least"), [((0,), 1), ((5, -5), 1), ((3, -5), 1), ((49,), 50)])
def test_an_invoice_with_nothing_due_is_paid_at_once(
    client: StripeClient, fake: FakeStripe, amounts: tuple[int, ...], least: int
) -> None:
    fake.least_due = least
    invoice = opened(client, *amounts)
    assert (invoice.status, invoice.total, invoice.amount_due) == ("paid", sum(amounts), 0)
    assert [event["type"] for event in fake.events] == ["invoice.created", "invoice.finalized", "invoice.paid"]


def test_an_invoice_shows_ten_lines_and_lists_all_of_at_most_250(client: StripeClient) -> None:
    invoice = draft(client, *range(250))
    assert ([line.amount for line in invoice.lines.data], invoice.lines.has_more) == (list(range(10)), True)
    lines = client.v1.invoices.line_items.list(invoice.id, {"limit": 100})
    assert [line.amount for line in lines.auto_paging_iter()] == list(range(250))
    with pytest.raises(InvalidRequestError, match="250"):
        client.v1.invoices.add_lines(invoice.id, {"lines": [{"amount": 1}]})


def test_invoices_are_listed_by_customer_and_status(client: StripeClient) -> None:
    mine, others = customer(client).id, customer(client).id
    made = [draft(client, 1, owner=mine).id for _ in range(3)]
    draft(client, 1, owner=others)
    client.v1.invoices.finalize_invoice(made[1])
    listed = client.v1.invoices.list({"customer": mine, "limit": 1})
    assert ([each.id for each in listed.data], listed.has_more) == ([made[2]], True)
    assert [each.id for each in listed.auto_paging_iter()] == made[::-1]
    assert [each.id for each in client.v1.invoices.list({"customer": mine, "status": "open"}).data] == [made[1]]


@pytest.mark.parametrize(
    ("send", "status", "code", "param"),
    [
        (lambda c: c.v1.customers.retrieve("cus_0"), 404, "resource_missing", "id"),
        (lambda c: c.v1.customers.list({"starting_after": "cus_0"}), 400, "resource_missing", "starting_after"),
        (lambda c: c.v1.invoices.retrieve("in_0"), 404, "resource_missing", "invoice"),
        (lambda c: c.v1.invoices.finalize_invoice("in_0"), 404, "resource_missing", "id"),
        (lambda c: c.v1.invoices.create({"customer": "cus_0"}), 400, "resource_missing", "customer"),
        (lambda c: c.v1.invoices.list({"customer": "cus_0"}), 400, "resource_missing", "customer"),
        (lambda c: c.v1.invoices.create({}), 400, "parameter_missing", "customer"),
        (lambda c: c.v1.customers.create({"nickname": "x"}), 400, "parameter_unknown", "nickname"),
        (lambda c: c.v1.customers.create({"name": ""}), 400, "parameter_invalid_empty", "name"),
        (lambda c: c.v1.customers.create({"name": "x" * 257}), 400, None, "name"),
        (lambda c: c.v1.customers.create({"metadata": {"k": "x" * 501}}), 400, None, "metadata[k]"),
        (lambda c: c.v1.customers.create({"metadata": {str(n): "x" for n in range(51)}}), 400, None, "metadata"),
        (lambda c: c.v1.customers.list({"limit": 101}), 400, "parameter_invalid_integer", "limit"),
        (lambda c: c.v1.invoices.add_lines("in_0", {"lines": [{"x": 1}]}), 400, "parameter_unknown", "lines[0][x]"),
        (lambda c: c.v1.invoices.add_lines("in_0", {"lines": [{}]}), 400, "parameter_missing", "lines"),
    ],
)
def test_a_refusal_says_what_is_wrong(
    client: StripeClient, send: Callable[[StripeClient], Any], status: int, code: str | None, param: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        send(client)
    error = refused.value
    assert (error.http_status, error.code, error.param) == (status, code, param)
    assert error.error.type == "invalid_request_error"
    assert error.request_id.startswith("req_")


@pytest.mark.parametrize(
    ("email", "given", "complaint"),
    [
        ("a@example.com", {"collection_method": "send_invoice"}, "must specify"),
        ("a@example.com", {"days_until_due": 1}, "can only specify"),
        (None, {"collection_method": "send_invoice", "days_until_due": 1}, "Missing email"),
    ],
)
def test_an_invoice_that_is_sent_is_due_someday_and_goes_somewhere(
    client: StripeClient, email: str | None, given: dict[str, Any], complaint: str
) -> None:
    owner = client.v1.customers.create({"email": email} if email else {}).id
    with pytest.raises(InvalidRequestError, match=complaint):
        client.v1.invoices.create({"customer": owner, **given})


def test_a_key_is_asked_for(fake: FakeStripe, connect: Connect) -> None:
    with pytest.raises(AuthenticationError):
        connect(fake.url, "sk_test_other").v1.customers.list()
    asked = [{"auth": (fake.api_key, "")}, {"auth": (fake.api_key, "x")}, {"headers": {"Authorization": "Basic ~"}}, {}]
    answers = [httpx2.get(f"{fake.url}/v1/customers", trust_env=False, **how) for how in asked]
    assert [answer.status_code for answer in answers] == [200, 401, 401, 401]


def test_the_same_key_is_answered_the_same(client: StripeClient, fake: FakeStripe) -> None:
    first, again = (customer(client, idempotency_key="k") for _ in range(2))
    assert first.id == again.id
    assert [*fake.customers] == [first.id]
    assert "Idempotent-Replayed" not in first.last_response.headers
    headers = again.last_response.headers
    assert (headers["Idempotent-Replayed"], headers["Idempotency-Key"]) == ("true", "k")
    assert headers["Original-Request"] == first.last_response.request_id != again.last_response.request_id
    assert fake.requests == [("POST", "/v1/customers", "k")] * 2


def test_the_same_key_at_once_is_answered_the_same(client: StripeClient, fake: FakeStripe) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = {each.id for each in pool.map(lambda _: customer(client, idempotency_key="k"), range(16))}
    assert [*fake.customers] == [*made]


def test_a_key_is_of_one_request_until_it_is_forgotten(
    client: StripeClient, fake: FakeStripe, clock: ManualClock
) -> None:
    first = customer(client, idempotency_key="k").id
    clock.advance(DAY - 1)
    with pytest.raises(IdempotencyError, match="same parameters") as refused:
        customer(client, "ten_2", idempotency_key="k")
    assert refused.value.http_status == 400
    with pytest.raises(IdempotencyError, match="same endpoint"):
        client.v1.invoices.create({"customer": first}, {"idempotency_key": "k"})
    clock.advance(1)
    assert customer(client, "ten_2", idempotency_key="k").id != first
    assert len(fake.customers) == 2


def test_what_was_refused_is_saved_if_it_was_begun(client: StripeClient, fake: FakeStripe) -> None:
    key = {"idempotency_key": "k"}
    with pytest.raises(InvalidRequestError, match="unknown parameter"):
        client.v1.customers.create({"x": "1"}, key)
    owner = client.v1.customers.create({"name": "x"}, key).id
    key = {"idempotency_key": "l"}
    given = {"customer": owner, "collection_method": "send_invoice", "days_until_due": 1}
    with pytest.raises(InvalidRequestError, match="Missing email"):
        client.v1.invoices.create(given, key)
    fake.customers[owner]["email"] = "a@example.com"
    with pytest.raises(InvalidRequestError, match="Missing email"):
        client.v1.invoices.create(given, key)
    assert client.v1.invoices.create(given).customer_email == "a@example.com"


def test_events_tell_of_every_state_and_who_caused_it(client: StripeClient, fake: FakeStripe) -> None:
    invoice = draft(client, 100)
    finalized = client.v1.invoices.finalize_invoice(invoice.id, options={"idempotency_key": "k"})
    fake.mark_uncollectible(invoice.id)
    fake.void(invoice.id)
    told = [
        (event["type"], event["data"]["object"]["status"], event["data"]["object"]["total"]) for event in fake.events
    ]
    assert told == [
        ("invoice.created", "draft", 0),
        ("invoice.finalized", "open", 100),
        ("invoice.marked_uncollectible", "uncollectible", 100),
        ("invoice.voided", "void", 100),
    ]
    assert fake.events[1]["request"] == {"id": finalized.last_response.request_id, "idempotency_key": "k"}
    assert fake.events[3]["request"] == {"id": None, "idempotency_key": None}
    assert {(event["object"], event["created"], event["livemode"]) for event in fake.events} == {("event", NOW, False)}
    assert len({event["id"] for event in fake.events}) == 4


def test_stripes_client_trusts_a_signature(client: StripeClient, fake: FakeStripe) -> None:
    draft(client)
    now = int(time.time())
    body, signature = fake.signed(fake.events[0], ["whsec_old", "whsec_new"], now)
    for secret in ("whsec_old", "whsec_new"):
        event = client.construct_event(body, signature, secret)
        assert (event.type, event.data.object["object"]) == ("invoice.created", "invoice")
    bad = [
        (body, signature, "whsec_other"),
        (body + b" ", signature, "whsec_new"),
        (*fake.signed(fake.events[0], "whsec_new", now - 301), "whsec_new"),
        (*fake.signed(fake.events[0], "whsec_new"), "whsec_new"),  # the clock is the fake's
    ]
    for each in bad:
        with pytest.raises(SignatureVerificationError):
            client.construct_event(*each)


@pytest.mark.parametrize(
    ("how", "error", "status", "done"),
    [
        ("cut-before", APIConnectionError, None, False),
        ("cut-after", APIConnectionError, None, True),
        ("500-after", APIError, 500, True),
        ("429", RateLimitError, 429, False),
    ],
)
def test_a_planted_fault(
    client: StripeClient, fake: FakeStripe, how: Any, error: type[stripe.StripeError], status: int | None, done: bool
) -> None:
    fake.misbehave(lambda request: how if request == ("POST", "/v1/customers", "k") else None)
    with pytest.raises(error) as failed:
        customer(client, idempotency_key="k")
    assert failed.value.http_status == status
    assert len(fake.customers) == done
    assert len(client.v1.customers.list().data) == done
    fake.misbehave(None)
    if status == 500:
        with pytest.raises(APIError):
            customer(client, idempotency_key="k")
    else:
        assert customer(client, idempotency_key="k").id in fake.customers
    assert len(fake.customers) == 1


def test_a_request_that_hangs_ends_with_the_fake(client: StripeClient, fake: FakeStripe) -> None:
    fake.misbehave(lambda request: "hang")
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(customer, client)
        wait_until(lambda: fake.requests)
        assert not hanging.done()
        fake.stop()
        assert isinstance(hanging.exception(10), APIConnectionError)
    assert fake.customers == {}


def test_it_comes_back_as_it_was(client: StripeClient, fake: FakeStripe) -> None:
    made, url = customer(client, idempotency_key="k").id, fake.url
    fake.stop()
    with pytest.raises(APIConnectionError):
        client.v1.customers.retrieve(made)
    fake.start()
    assert fake.url == url
    assert client.v1.customers.retrieve(made).id == customer(client, idempotency_key="k").id == made
    assert fake.requests[-2] == Request("GET", f"/v1/customers/{made}", None)
