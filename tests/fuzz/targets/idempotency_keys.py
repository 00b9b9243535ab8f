"""`Idempotency-Key`: 1 to 255 characters of printable ASCII, quoted or not, or refused; bound to the request."""

from __future__ import annotations

from kgents.agents.ledger_ops import MAX_KEY_LENGTH
from kgents.api.call import idempotency_of
from kgents.errors import InvalidRequest

_SCOPE = {"type": "http", "method": "POST", "path": "/v1/runs"}

SEEDS = [b"a", b'"quoted"', b"  spaced  ", b'""', b"a" * 255, b"a" * 256, b"\xff", b"a b", b"\x7f"]


def check(data: bytes) -> None:
    """A header's value."""
    text = data.decode("latin-1").strip(" \t")
    quoted = text.startswith('"')
    right = (
        1 + 2 * quoted <= len(text) <= MAX_KEY_LENGTH
        and all(" " <= character <= "~" for character in text)
        and (text.endswith('"') or not quoted)
    )
    try:
        found = idempotency_of(_SCOPE, data, b"body", 1_000_000, 86_400)
    except InvalidRequest:
        assert not right
        return
    assert found is not None
    assert right
    assert found == idempotency_of(_SCOPE, data, b"body", 1_000_000, 86_400)
    for other, body in ((_SCOPE | {"path": "/v1/agents"}, b"body"), (_SCOPE, b"bodz"), (_SCOPE, data + b"body")):
        another = idempotency_of(other, data, body, 1_000_000, 86_400)
        assert another is not None
        assert another != found or body == b"body" == data + b"body"
