"""Webhooks of Stripe's: nothing is taken without the right signature, and with it only what is an event."""

from __future__ import annotations

import hashlib
import hmac
import json

from kgents.billing.inbox import verify
from kgents.errors import InvalidRequest

_SECRET = "whsec_of_the_fuzzer"
_NOW = 1_767_225_600
_EVENT = b'{"id":"evt_1","type":"invoice.paid","data":{"object":{"object":"invoice","id":"in_1"}}}'

SEEDS = [
    _EVENT,
    _EVENT.replace(b"invoice", b"customer"),
    _EVENT.replace(b'"in_1"', b"7"),
    b'{"data":{"object":[]}}',
    b"[]",
    b"t=1767225600,v1=00",
    b"t=1767225600,t=1767225600,v1=,v0=",
    b"",
]


def check(data: bytes) -> None:
    """A header for a body that it is not of, and a body with a header that is of it."""
    try:
        verify(_EVENT, data.decode("latin-1"), _SECRET, _NOW * 1_000_000)
    except InvalidRequest:
        pass
    else:
        raise AssertionError("what nobody signed was taken")
    signature = hmac.new(_SECRET.encode(), b"%d." % _NOW + data, hashlib.sha256).hexdigest()
    try:
        found = verify(data, f"t={_NOW},v1={signature}", _SECRET, _NOW * 1_000_000)
    except InvalidRequest as refused:
        if refused.code != "webhook-body":
            raise
        return
    about = json.loads(data)["data"]["object"]
    assert (found is None) == (about.get("object") != "invoice")
    if found is not None:
        event = json.loads(data)
        assert (found.event_id, found.type, found.stripe_id) == (event["id"], event["type"], about["id"])
        assert all(0 < len(text) <= 255 for text in (found.event_id, found.type, found.stripe_id))
