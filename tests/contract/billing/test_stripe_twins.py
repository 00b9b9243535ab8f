"""What kgents sends to Stripe and reads of its answers, with the fake and with its official twin, stripe-mock. The twin
has Stripe's own description of its API and no memory; the fake has the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from stripe import AuthenticationError, InvalidRequestError, StripeClient

from tests.contract.billing.conftest import Connect
from tests.support import stripe_mock as twin
from tests.support.stripe import FakeStripe

CUSTOMER: dict[str, Any] = {
    "name": "Acme",
    "description": "A tenant of kgents",
    "email": "billing@example.com",
    "metadata": {"kgents_tenant": "ten_1"},
}
INVOICE: dict[str, Any] = {
    "currency": "eur",
    "collection_method": "send_invoice",
    "days_until_due": 30,
    "auto_advance": False,
    "pending_invoice_items_behavior": "exclude",
    "description": "October 2026",
    "metadata": {"kgents_invoice": "inv_1"},
}
LINES: list[dict[str, Any]] = [
    {
        "amount": 4900,
        "description": "Team",
        "period": {"start": 1_790_812_800, "end": 1_793_491_200},
        "metadata": {"kgents_meter": "runs"},
    },
    {"amount": 12, "description": "input_tokens"},
]
READ = {
    "customer": {"id", "object", "metadata"},
    "deleted customer": {"id", "object", "deleted"},
    "invoice": {"id", "object", "status", "total", "currency", "customer", "metadata", "hosted_invoice_url"},
    "line": {"id", "object", "amount", "currency", "description", "period", "metadata"},
}


class Kgents:
    """The requests of kgents, about a customer and a draft of theirs."""

    def __init__(self, client: StripeClient) -> None:
        self.customers, self.invoices = client.v1.customers, client.v1.invoices
        self.customer = self.customers.create(CUSTOMER).id
        self.invoice = self.invoices.create({**INVOICE, "customer": self.customer}).id

    def prepare(self, name: str) -> None:
        """Send what Stripe wants before a request."""
        for before in REQUESTS[name].after:
            self.send(before)

    def send(self, name: str, **changes: Any) -> dict[str, Any]:
        """Answers the object as it came. `changes` are parameters that the request gets besides or instead."""
        raw: dict[str, Any] = REQUESTS[name].send(self, changes).last_response.data
        return raw


class Sent(NamedTuple):
    """A request: of which kind are the objects that it is answered with, and what is sent before it."""

    of: str
    send: Callable[[Kgents, dict[str, Any]], Any]
    after: tuple[str, ...] = ()


REQUESTS = {
    "create a customer": Sent(
        "customer", lambda my, changes: my.customers.create({**CUSTOMER, **changes}, {"idempotency_key": "ten_1"})
    ),
    "retrieve a customer": Sent("customer", lambda my, changes: my.customers.retrieve(my.customer, changes)),
    "list customers": Sent("customer", lambda my, changes: my.customers.list({"limit": 100, **changes})),
    "list more customers": Sent(
        "customer", lambda my, changes: my.customers.list({"starting_after": my.customer, **changes})
    ),
    "search customers": Sent(
        "customer",
        lambda my, changes: my.customers.search({"query": "metadata['kgents_tenant']:'ten_1'", "limit": 2, **changes}),
    ),
    "delete a customer": Sent("deleted customer", lambda my, changes: my.customers.delete(my.customer, changes)),
    "create an invoice": Sent(
        "invoice",
        lambda my, changes: my.invoices.create(
            {**INVOICE, "customer": my.customer, **changes}, {"idempotency_key": "inv_1"}
        ),
    ),
    "retrieve an invoice": Sent("invoice", lambda my, changes: my.invoices.retrieve(my.invoice, changes)),
    "list a customer's invoices": Sent(
        "invoice",
        lambda my, changes: my.invoices.list({"customer": my.customer, "status": "draft", "limit": 100, **changes}),
    ),
    "list more invoices": Sent(
        "invoice", lambda my, changes: my.invoices.list({"starting_after": my.invoice, **changes})
    ),
    "add lines": Sent(
        "invoice",
        lambda my, changes: my.invoices.add_lines(
            my.invoice, {"lines": LINES, "invoice_metadata": {"kgents_lines": "2"}, **changes}
        ),
    ),
    "list lines": Sent(
        "line", lambda my, changes: my.invoices.line_items.list(my.invoice, {"limit": 100, **changes}), ("add lines",)
    ),
    "finalise": Sent(
        "invoice",
        lambda my, changes: my.invoices.finalize_invoice(my.invoice, {"auto_advance": False, **changes}),
        ("add lines",),
    ),
    "mark as uncollectible": Sent(
        "invoice",
        lambda my, changes: my.invoices.mark_uncollectible(my.invoice, changes),
        ("add lines", "finalise"),
    ),
    "pay out of band": Sent(
        "invoice",
        lambda my, changes: my.invoices.pay(my.invoice, {"paid_out_of_band": True, **changes}),
        ("add lines", "finalise"),
    ),
    "void": Sent(
        "invoice", lambda my, changes: my.invoices.void_invoice(my.invoice, changes), ("add lines", "finalise")
    ),
}


@pytest.fixture(params=["fake", "stripe-mock"])
def client(request: pytest.FixtureRequest, connect: Connect) -> Iterator[StripeClient]:
    """Stripe's client of the fake, and of its twin."""
    if request.param == "fake":
        fake: FakeStripe = request.getfixturevalue("fake")
        yield connect(fake.url, fake.api_key)
    else:
        yield connect(request.getfixturevalue("stripe_mock"), twin.API_KEY)


def answered(client: StripeClient, name: str) -> dict[str, Any]:
    kgents = Kgents(client)
    kgents.prepare(name)
    return kgents.send(name)


@pytest.mark.parametrize("name", REQUESTS)
def test_every_request_is_taken_and_answered_with_what_kgents_reads(client: StripeClient, name: str) -> None:
    answer = answered(client, name)
    if "data" in answer:
        assert isinstance(answer["has_more"], bool)
    for each in answer.get("data", [answer]):
        assert READ[REQUESTS[name].of] <= each.keys()


def test_a_draft_is_deleted(client: StripeClient) -> None:
    kgents = Kgents(client)
    answer = kgents.invoices.delete(kgents.invoice)
    assert (answer.id, answer.deleted) == (kgents.invoice, True)


@pytest.mark.parametrize("name", REQUESTS)
def test_an_unknown_parameter_is_refused(client: StripeClient, name: str) -> None:
    kgents = Kgents(client)
    kgents.prepare(name)
    with pytest.raises(InvalidRequestError) as refused:
        kgents.send(name, kgents_unknown="1")
    assert refused.value.http_status == 400


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("list customers", {"limit": "many"}),
        ("create an invoice", {"days_until_due": "soon"}),
        ("create an invoice", {"collection_method": "by_post"}),
        ("create an invoice", {"auto_advance": "perhaps"}),
        ("list a customer's invoices", {"status": "lost"}),
        ("add lines", {"lines": [{"amount": "a lot"}]}),
        ("add lines", {"lines": [{"amount": 1, "period": {"start": 1}}]}),
        ("finalise", {"auto_advance": "perhaps"}),
    ],
)
def test_a_value_of_another_type_is_refused(client: StripeClient, name: str, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        Kgents(client).send(name, **change)
    assert refused.value.http_status == 400


def test_a_parameter_that_is_needed_is_missed(client: StripeClient) -> None:
    kgents = Kgents(client)
    for path in ("/v1/customers/search", f"/v1/invoices/{kgents.invoice}/add_lines"):
        method = "get" if path.endswith("search") else "post"
        with pytest.raises(InvalidRequestError) as refused:
            client.raw_request(method, path)
        assert refused.value.http_status == 400


def test_a_path_that_stripe_does_not_have_is_not_found(client: StripeClient) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        client.raw_request("get", "/v1/kgents")
    assert refused.value.http_status == 404


def test_a_key_of_another_kind_is_refused(client: StripeClient) -> None:
    with pytest.raises(AuthenticationError) as refused:
        client.v1.customers.list(options={"api_key": "pk_live_1"})
    assert refused.value.http_status == 401


@pytest.mark.parametrize("name", REQUESTS)
def test_the_twins_answers_are_of_the_same_types(
    fake: FakeStripe, stripe_mock: str, connect: Connect, name: str
) -> None:
    mine = answered(connect(fake.url, fake.api_key), name)
    theirs = answered(connect(stripe_mock, twin.API_KEY), name)
    assert set(differences(mine, theirs)) <= {".next_page: is not there"}, "the twin has one page"


def test_differences_are_found() -> None:
    theirs = {"id": "in_1", "lines": {"data": [{"amount": 1}]}, "metadata": {}}
    mine = {"id": 1, "lines": {"data": [{"amount": 1}, {"amount": "1"}]}, "metadata": {"any": "1"}, "sum": 1}
    assert differences(mine, theirs) == [
        ".id: int is str",
        ".lines.data[].amount: str is int",
        ".sum: is not there",
    ]


def differences(mine: Any, theirs: Any, path: str = "") -> list[str]:
    """Where the fake's answer has a field that Stripe's has not, or one of another type; null is of every type."""
    if mine is None or theirs is None:
        return []
    if type(mine) is not type(theirs):
        return [f"{path}: {type(mine).__name__} is {type(theirs).__name__}"]
    if isinstance(mine, dict) and not path.endswith("metadata"):
        return [
            difference
            for key, value in mine.items()
            for difference in (
                differences(value, theirs[key], f"{path}.{key}") if key in theirs else [f"{path}.{key}: is not there"]
            )
        ]
    if isinstance(mine, list) and theirs:
        return [difference for each in mine for difference in differences(each, theirs[0], f"{path}[]")]
    return []
