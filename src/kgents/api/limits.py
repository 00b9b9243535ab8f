"""The tenant's rate limits at the edge: requests and tokens a minute, and the headers that tell of them."""

from __future__ import annotations

from typing import NamedTuple

from kgents.config import Settings
from kgents.tenants.model import Principal
from kgents.tenants.ratelimit import Decision, Limiter

Headers = list[tuple[bytes, bytes]]


class Verdict(NamedTuple):
    """Whether a request may go on, and the headers to answer with either way."""

    allowed: bool
    kind: str
    limit: int
    retry_after: int
    headers: Headers


class RateLimits:
    """Asks the limiter for a tenant's requests and tokens."""

    def __init__(self, limiter: Limiter, settings: Settings) -> None:
        self._limiter = limiter
        self._requests = settings.default_requests_per_minute
        self._tokens = settings.default_tokens_per_minute

    async def request(self, principal: Principal) -> Verdict:
        """Count one request of the tenant."""
        decision = await self._limiter.check_requests(
            principal.tenant_id, principal.requests_per_minute or self._requests
        )
        return Verdict(
            decision.allowed, "requests", decision.limit, decision.retry_after, headers("requests", decision)
        )

    async def tokens(self, principal: Principal) -> Verdict:
        """Whether the tenant has tokens left this minute. What a run used is charged when it has ended."""
        decision = await self._limiter.check_tokens(principal.tenant_id, principal.tokens_per_minute or self._tokens)
        return Verdict(decision.allowed, "tokens", decision.limit, decision.retry_after, headers("tokens", decision))

    async def charge(self, principal: Principal, tokens: int) -> None:
        """Charge tokens that were used, or (for queued work) may be; the tenant may go into debt, and waits it out."""
        if tokens > 0:
            await self._limiter.charge_tokens(principal.tenant_id, principal.tokens_per_minute or self._tokens, tokens)

    def charge_later(self, principal: Principal, tokens: int) -> None:
        """Charge without waiting for the limiter's store."""
        if tokens > 0:
            self._limiter.charge_soon(principal.tenant_id, principal.tokens_per_minute or self._tokens, tokens)


def headers(kind: str, decision: Decision) -> Headers:
    """`RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10), and OpenAI's own names."""
    name = kind.encode()
    return [
        (b"ratelimit-policy", b'"%s";q=%d;w=60' % (name, decision.limit)),
        (b"ratelimit", b'"%s";r=%d;t=%d' % (name, decision.remaining, decision.reset)),
        (b"x-ratelimit-limit-" + name, b"%d" % decision.limit),
        (b"x-ratelimit-remaining-" + name, b"%d" % decision.remaining),
        (b"x-ratelimit-reset-" + name, b"%ds" % decision.reset),
    ]
