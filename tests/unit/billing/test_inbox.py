"""Whether it was Stripe who told it. Signatures are made by Stripe's own library."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
import stripe

from kgents.billing.inbox import StripeEvent, verify
from kgents.clock import SECOND
from kgents.errors import InvalidRequest

SECRET, OTHER = "whsec_of_this_endpoint", "whsec_of_another"
NOW = 1_767_225_600
EVENT = {
    "id": "evt_1",
    "object": "event",
    "type": "invoice.paid",
    "data": {"object": {"object": "invoice", "id": "in_1"}},
}
BODY = json.dumps(EVENT).encode()


def signed(body: bytes = BODY, secret: str = SECRET, at: int = NOW) -> str:
    return stripe.WebhookSignature.generate_signature_header(body.decode(), secret, at)


def taken(body: bytes, signature: str) -> StripeEvent | None:
    return verify(body, signature, SECRET, NOW * SECOND)


def test_an_event_that_stripe_signed_is_taken() -> None:
    assert taken(BODY, signed()) == StripeEvent("evt_1", "invoice.paid", "in_1")


@pytest.mark.parametrize("apart", [-300, 300])
def test_five_minutes_are_allowed_both_ways(apart: int) -> None:
    assert taken(BODY, signed(at=NOW + apart)) is not None


@pytest.mark.parametrize("apart", [-301, 301, -86_400, 86_400, 10**9])
def test_a_moment_too_long_ago_or_to_come_is_refused(apart: int) -> None:
    with pytest.raises(InvalidRequest, match="five minutes"):
        taken(BODY, signed(at=NOW + apart))


def test_while_a_secret_is_replaced_either_signature_will_do() -> None:
    assert taken(BODY, f"{signed(secret=OTHER)},{signed().partition(',')[2]}") is not None


def test_what_is_not_about_an_invoice_is_not_kept() -> None:
    body = json.dumps(EVENT | {"data": {"object": {"object": "customer", "id": "cus_1"}}}).encode()
    assert taken(body, signed(body)) is None


def _flipped(text: str, chance: random.Random) -> str:
    place = chance.randrange(len(text))
    return text[:place] + chr(33 + (ord(text[place]) - 32 + chance.randrange(92)) % 94) + text[place + 1 :]


FORGERIES: dict[str, Callable[[random.Random], tuple[bytes, str]]] = {
    "another secret": lambda _: (BODY, signed(secret=OTHER)),
    "another body": lambda chance: (_flipped(BODY.decode(), chance).encode(), signed()),
    "another signature": lambda chance: (BODY, f"t={NOW},v1={_flipped(signed().partition('v1=')[2], chance)}"),
    "a part of it": lambda chance: (BODY, signed()[: chance.randrange(len(signed()) - 1)]),
    "another scheme": lambda _: (BODY, signed().replace("v1=", "v0=")),
    "stale": lambda chance: (BODY, signed(at=NOW - 301 - chance.randrange(10**8))),
    "to come": lambda chance: (BODY, signed(at=NOW + 301 + chance.randrange(10**8))),
    "the time of another": lambda chance: (BODY, signed().replace(f"t={NOW}", f"t={NOW - 1 - chance.randrange(300)}")),
    "two times": lambda chance: (BODY, f"t={NOW - 400},{signed()}"),
    "none": lambda _: (BODY, ""),
    "noise": lambda chance: (BODY, "".join(chr(chance.randrange(32, 255)) for _ in range(chance.randrange(200)))),
    "a time that is none": lambda chance: (
        BODY,
        signed().replace(str(NOW), chance.choice(["", "-1", "1e9", "²", "9" * 99])),
    ),
}


@pytest.mark.parametrize("number", range(100))
@pytest.mark.parametrize("kind", FORGERIES)
def test_no_forgery_is_taken(kind: str, number: int) -> None:
    body, signature = FORGERIES[kind](random.Random(f"{kind} {number}"))
    with pytest.raises(InvalidRequest):
        taken(body, signature)


@pytest.mark.parametrize(
    "event",
    [
        [],
        "evt_1",
        {},
        EVENT | {"id": 5},
        EVENT | {"id": ""},
        EVENT | {"id": "e" * 256},
        EVENT | {"data": {"object": []}},
        EVENT | {"data": {"object": {"object": "invoice"}}},
        EVENT | {"data": {"object": {"object": "invoice", "id": ["in_1"]}}},
    ],
)
def test_what_is_signed_and_no_event_is_refused(event: object) -> None:
    body = json.dumps(event).encode()
    with pytest.raises(InvalidRequest, match="no event"):
        taken(body, signed(body))
