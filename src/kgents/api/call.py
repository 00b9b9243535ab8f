"""One HTTP request as the routes see it: who calls, with which key, under which request id."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from starlette.types import Scope as AsgiScope

from kgents.agents.ledger_ops import MAX_KEY_LENGTH, IdempotencyKey
from kgents.api.admission import Place
from kgents.api.services import Services
from kgents.clock import SECOND
from kgents.errors import InvalidRequest
from kgents.tenants.model import Actor, Principal

CALL = "kgents.call"
KEY_PATTERN = '^("[ -~]+"|[!#-~]([ -~]*[!-~])?)$'
"""Of an Idempotency-Key: printable ASCII, in quotes as the draft has it or without."""
_KEY = re.compile(KEY_PATTERN)


@dataclass(slots=True)
class Call:
    """An authenticated request. `source` tells the client's address, and `authenticate` looks at the key again, raising
    what refuses it by then. What is added to `headers` is sent with the response, whatever it turns out to be.
    """

    services: Services
    principal: Principal
    request_id: str
    source: Callable[[], str]
    authenticate: Callable[[], Awaitable[Principal]]
    traceparent: str | None
    idempotency: IdempotencyKey | None
    headers: list[tuple[bytes, bytes]]
    place: Place

    @property
    def tenant_id(self) -> str:
        """The tenant that calls."""
        return self.principal.tenant_id

    @property
    def actor(self) -> Actor:
        """Who the audit log names."""
        return Actor(self.principal.key_id, self.source(), self.request_id)

    def now(self) -> int:
        """The time, in microseconds since the epoch."""
        return self.services.clock.now()


class Needs:
    """A dependency that gives the Call, and refuses (403) a key without `scope`."""

    def __init__(self, scope: str) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Call:
        found: Call = request.scope[CALL]
        found.principal.require(self.scope)
        return found


def idempotency_of(scope: AsgiScope, value: bytes | None, body: bytes, now: int, ttl: float) -> IdempotencyKey | None:
    """The request's `Idempotency-Key`, bound to a hash of its method, path and body. Raises InvalidRequest.

    Follows draft-ietf-httpapi-idempotency-key-header.
    """
    if value is None:
        return None
    key = value.decode("latin-1").strip(" \t")
    if len(key) > MAX_KEY_LENGTH or not _KEY.fullmatch(key):
        raise InvalidRequest(
            f"The Idempotency-Key must be 1 to {MAX_KEY_LENGTH} printable ASCII characters, in quotes or without.",
            code="idempotency-key-invalid",
        )
    key = key[1:-1] if key[0] == '"' else key
    what = hashlib.sha256(f"{scope['method']} {scope['path']}\n".encode() + body).digest()
    return IdempotencyKey(key, what, now + round(ttl * SECOND))


def caller(scope: str) -> object:
    """`Annotated[Call, caller("agents:read")]`: the permission as a type in the route's signature."""
    return Depends(Needs(scope))


AgentsRead = Annotated[Call, caller("agents:read")]
AgentsWrite = Annotated[Call, caller("agents:write")]
SessionsRead = Annotated[Call, caller("sessions:read")]
SessionsWrite = Annotated[Call, caller("sessions:write")]
RunsRead = Annotated[Call, caller("runs:read")]
RunsWrite = Annotated[Call, caller("runs:write")]
UsageRead = Annotated[Call, caller("usage:read")]
KeysRead = Annotated[Call, caller("keys:read")]
KeysWrite = Annotated[Call, caller("keys:write")]
AuditRead = Annotated[Call, caller("audit:read")]
PlatformAdmin = Annotated[Call, caller("platform:admin")]
