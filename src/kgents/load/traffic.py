"""What a load asks for: a mix as tenants' programs make it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

CHAT, STREAM, RUN, SESSION, USAGE = "chat", "stream", "session run", "session", "usage"
WEIGHTS = {CHAT: 14, RUN: 2, SESSION: 1, USAGE: 3}
"""Of what is no stream, in twentieths. Streams have their own share, and their own driver."""
SIZES = ((12, 6), (150, 3), (1500, 1))
"""Words of a message, and how often of ten."""
RUNS_A_CYCLE = 400  # runs in sessions until all come again; as many sessions, so that none is asked while it is busy
_WORDS = ("tenant", "agent", "ledger", "token", "stream", "quota", "invoice", "meter", "event", "run")


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant that was made for the test, with API keys and sessions."""

    id: str
    keys: Sequence[str] = field(repr=False)
    sessions: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """A request of a kind, with an API key."""

    kind: str
    method: str
    path: str
    key: str = field(repr=False)
    body: bytes = b""


def kind_of(method: str, path: str) -> str:
    """The kind of a request that is no stream."""
    if method == "GET":
        return USAGE
    if path.endswith("/runs"):
        return RUN
    return SESSION if path.endswith("/sessions") else CHAT


def mixed(tenants: Sequence[Tenant], seed: int = 7) -> list[Request]:
    """The requests of one cycle, without streams: the same for the same tenants and seed."""
    random = Random(seed)  # noqa: S311 - no secret
    unit = RUNS_A_CYCLE // WEIGHTS[RUN]
    kinds = [kind for kind, weight in WEIGHTS.items() for _ in range(weight * unit)]
    random.shuffle(kinds)
    sessions = _sessions(tenants)
    return [_request(kind, tenants[at % len(tenants)], random, sessions) for at, kind in enumerate(kinds)]


def chats(tenants: Sequence[Tenant], *, stream: bool = False, seed: int = 7) -> list[Request]:
    """A cycle of chat completions only; as streams where `stream` says so."""
    random = Random(seed)  # noqa: S311 - no secret
    return [_chat(tenants[at % len(tenants)], random, stream=stream) for at in range(600)]


def _sessions(tenants: Sequence[Tenant]) -> Iterator[tuple[Tenant, str]]:
    while True:
        yield from ((tenant, session) for tenant in tenants for session in tenant.sessions)


def _request(kind: str, tenant: Tenant, random: Random, sessions: Iterator[tuple[Tenant, str]]) -> Request:
    if kind == RUN:
        owner, session = next(sessions)
        return Request(
            kind, "POST", f"/v1/sessions/{session}/runs", _key(owner, random), _json({"input": _text(random)})
        )
    if kind == SESSION:
        return Request(kind, "POST", "/v1/sessions", _key(tenant, random), _json({"agent": "echo"}))
    if kind == USAGE:
        path = random.choice(("/v1/usage?window=hour", "/v1/usage/balance", "/v1/usage/events?limit=20"))
        return Request(kind, "GET", path, _key(tenant, random))
    return _chat(tenant, random, stream=False)


def _chat(tenant: Tenant, random: Random, *, stream: bool) -> Request:
    body: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": _text(random)}]}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return Request(STREAM if stream else CHAT, "POST", "/v1/chat/completions", _key(tenant, random), _json(body))


def _key(tenant: Tenant, random: Random) -> str:
    return random.choice(tenant.keys)


def _text(random: Random) -> str:
    words, weights = zip(*SIZES, strict=True)
    return " ".join(random.choices(_WORDS, k=random.choices(words, weights)[0]))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
