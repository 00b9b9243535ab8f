"""The outermost layer of the API: what happens to every request before and after its route.

In this order, so that the cheapest refusals come first and nothing is parsed for a caller who is not let in: request
id and trace, an unambiguous head, API key, rate limit, body size, JSON depth, a place to be worked on; then the route;
then headers, metrics and one log line.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from time import perf_counter
from typing import Any

import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kgents.api.admission import Place
from kgents.api.call import CALL, Call, idempotency_of
from kgents.api.direct import DirectRoute
from kgents.api.heads import check_codings, check_head
from kgents.api.problems import respond
from kgents.api.services import Services
from kgents.errors import InvalidRequest, KgentsError, RateLimited, TooLarge, Unauthenticated
from kgents.ids import new_id
from kgents.telemetry import logs, traces

log = structlog.get_logger("kgents.api")

REQUEST_ID = "kgents.request_id"
GONE = "kgents.gone"
"""In the scope of a request whose connection has ended."""
WEBHOOKS = "/webhooks/"
"""Under it requests bring a signature of their body instead of an API key."""
BODY_TIMEOUT = 30.0  # seconds for a client to send its body
MOST_CONTAINERS = 32_768  # of JSON, in a body
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # one level deeper, and one less, as signed bytes
_MEANINGLESS = bytes(set(range(256)) - set(b'[{]}"'))
SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
"""Headers of every answer that does not set its own."""


def internal() -> KgentsError:
    """What a client sees of an error that is our own fault."""
    return KgentsError("An error on our side; it is logged under this request's id. Trying again may help.")


class Edge:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, services: Services, direct: Sequence[DirectRoute] = ()) -> None:
        self._app = app
        self._services = services
        self._direct = {route.path: route for route in direct}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await _Exchange(self._app, self._services, self._direct, scope, receive, send).run()


class _Exchange:
    """One request and its response."""

    def __init__(
        self,
        app: ASGIApp,
        services: Services,
        direct: Mapping[str, DirectRoute],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._app = app
        self._services = services
        self._direct = direct
        self._scope = scope
        self._receive = receive
        self._send = send
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._extra: list[tuple[bytes, bytes]] = []
        self._place: Place | None = None
        self._tenant = ""
        self._status = 0
        self._ended = False
        self._path: str = scope["path"]
        given = self._headers.get(b"x-request-id")
        self._request_id = (given and usable(given)) or new_id("req")
        scope[REQUEST_ID] = self._request_id

    async def run(self) -> None:
        metrics = self._services.metrics
        started = perf_counter()
        metrics.request_started()
        with (
            logs.bound(request_id=self._request_id),
            traces.server_span(
                self._scope["method"], self._text(b"traceparent"), self._text(b"tracestate")
            ) as exchange,
        ):
            try:
                await self._guarded()
            finally:
                if self._place is not None:
                    self._place.leave()
                if self._tenant:
                    self._services.admission.end(self._tenant)
                elapsed = perf_counter() - started
                route = getattr(self._scope.get("route"), "path", "unmatched")
                exchange.answered(self._scope["method"], route, self._status or 499)
                metrics.request_ended(route, self._scope["method"], self._status or 499, elapsed)
                logs.request(self._scope["method"], route, self._status or 499, round(elapsed * 1000, 2))

    def _text(self, name: bytes) -> str | None:
        """A header's value; the values of one that is repeated, as one list (RFC 9110, section 5.3)."""
        if name not in self._headers:
            return None
        return b",".join(value for found, value in self._scope["headers"] if found == name).decode("latin-1")

    async def _guarded(self) -> None:
        try:
            await self._answer()
        except KgentsError as error:
            await self._refuse(error)
        except Exception as error:
            log.exception("unhandled error", exc_info=error)
            if self._status and not self._ended:
                raise  # the response has begun: only cutting the connection tells the client
            if not self._ended:
                await self._refuse(internal())

    async def _answer(self) -> None:
        scope = self._scope
        headers = self._headers
        if b"host" not in headers or len(headers) != len(scope["headers"]):
            check_head(scope, headers)
        if b"%00" in (scope.get("raw_path") or b"") or b"%00" in scope["query_string"]:
            raise InvalidRequest("A path or query can't hold a NUL byte.", code="nul-byte")
        if not self._path.startswith("/v1/"):
            signed = self._path.startswith(WEBHOOKS)
            receive = self._replay(await self._body()) if signed else self._receive
            await self._app(scope, receive, self._sent)
            return
        call, body = await self._admitted()
        route = self._direct.get(self._path) if scope["method"] == "POST" else None
        asked = route.read(body, self._headers.get(b"content-type", b"")) if route else None
        if route is None or asked is None:
            scope[CALL] = call
            await self._app(scope, self._replay(body), self._sent)
            return
        scope["route"] = route
        response = await route.answer(call, asked)
        if type(response) is Response:
            await self._sent(
                {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
            )
            await self._sent({"type": "http.response.body", "body": response.body})
        else:
            await response(scope, self._receive, self._sent)

    async def _refuse(self, error: KgentsError) -> None:
        response: Response = respond(error, self._path, self._request_id)
        await response(self._scope, self._receive, self._sent)

    async def _sent(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self._place is not None:
                self._place.leave()
            self._status = message["status"]
            given = message["headers"]
            present = {name for name, _ in given}
            message["headers"] = [
                *given,
                (b"x-request-id", self._request_id.encode()),
                *self._extra,
                *(pair for pair in SECURITY if pair[0] not in present),
            ]
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._ended = True

    async def _admitted(self) -> tuple[Call, bytes]:
        """Let the request in, or raise why not; answers who calls, and the body."""
        services = self._services
        principal = await self._authenticate()
        logs.bind(tenant_id=principal.tenant_id)
        await self._limit(principal)
        self._begin(principal.tenant_id)
        body = await self._body()
        place = await self._turn(principal.tenant_id)
        call = Call(
            services,
            principal,
            self._request_id,
            self._source,
            self._authenticate,
            traces.current(),
            idempotency_of(
                self._scope,
                self._headers.get(b"idempotency-key") if self._scope["method"] == "POST" else None,
                body,
                services.clock.now(),
                services.settings.idempotency_ttl,
            ),
            self._extra,
            place,
        )
        return call, body

    def _source(self) -> str:
        peer = (self._scope.get("client") or ("",))[0]
        return self._services.proxies.client(peer, self._headers.get(b"x-forwarded-for"))

    async def _turn(self, tenant_id: str) -> Place:
        admission = self._services.admission
        place = self._place = admission.enter(tenant_id)
        if place is None:
            place = self._place = await admission.wait(tenant_id)
            if self._scope.get(GONE):
                raise InvalidRequest("The client went away before its request was begun.")
        return place

    async def _authenticate(self) -> Any:
        scheme, _, token = self._headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise Unauthenticated(
                "Send your API key as 'Authorization: Bearer kg_...'.",
                headers={"WWW-Authenticate": 'Bearer realm="kgents"'},
            )
        text = token.strip().decode("latin-1")
        authenticator = self._services.authenticator
        known = authenticator.cached(text)
        if known is not None:
            return known
        # Those who are not known yet take turns with everybody as if they were one tenant.
        admission = self._services.admission
        place = admission.enter("") or await admission.wait("")
        try:
            return await authenticator.authenticate(text, self._source())
        except RateLimited:
            self._services.metrics.rate_limited("wrong_keys")
            raise
        finally:
            place.leave()

    async def _limit(self, principal: Any) -> None:
        decision = await self._services.limits.request(principal)
        self._extra = decision.headers
        if not decision.allowed:
            self._services.metrics.rate_limited(decision.kind)
            raise RateLimited(
                f"The tenant's rate limit of {decision.limit} {decision.kind} a minute is reached. "
                f"Try again in {decision.retry_after} s.",
                headers={"Retry-After": str(decision.retry_after)},
                limit=decision.limit,
                kind=decision.kind,
            )

    def _begin(self, tenant_id: str) -> None:
        try:
            self._services.admission.begin(tenant_id)
        except RateLimited:
            self._services.metrics.rate_limited("under_way")
            raise
        self._tenant = tenant_id

    async def _body(self) -> bytes:
        limit = self._services.settings.max_body_bytes
        declared = self._headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > limit:
            raise too_large(limit)
        if not declared and b"transfer-encoding" not in self._headers:
            return b""
        check_codings(self._scope, self._headers)
        chunks: list[bytes] = []
        size = 0
        timer = _Timer(BODY_TIMEOUT)
        try:
            while True:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise InvalidRequest("The client went away before its request was complete.")
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > limit:
                    raise too_large(limit)
                if not message.get("more_body"):
                    break
        except asyncio.CancelledError:
            if not timer.rang():
                raise
            raise InvalidRequest(
                f"The body did not arrive within {BODY_TIMEOUT:.0f} s.",
                code="body-timeout",
                headers={"Connection": "close"},
            ) from None
        finally:
            timer.stop()
        body = b"".join(chunks)
        check_structure(body, self._services.settings.max_json_depth)
        return body

    def _replay(self, body: bytes) -> Receive:
        given = False

        async def receive() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await self._receive()

        return receive


class _Timer:
    """Cancels the task that makes it in so many seconds. Every request has one, and asyncio.timeout does more than is
    needed where nobody else cancels meanwhile.
    """

    __slots__ = ("_handle", "_rang", "_task")

    def __init__(self, seconds: float) -> None:
        self._task = asyncio.current_task()
        self._rang = False
        self._handle = asyncio.get_running_loop().call_later(seconds, self._ring)

    def _ring(self) -> None:
        self._rang = True
        if self._task:
            self._task.cancel()

    def rang(self) -> bool:
        """Whether it was this timer; the task is then no longer to be cancelled."""
        if self._rang and self._task:
            self._task.uncancel()
        return self._rang

    def stop(self) -> None:
        self._handle.cancel()


def usable(given: bytes) -> str | None:
    """The client's request id, if it is a plain one that does not look like a secret, since it is logged."""
    text = given.decode("latin-1")
    return text if _REQUEST_ID.fullmatch(given) and logs.redact(text) == text else None


def too_large(limit: int) -> TooLarge:
    """The refusal of a body over the limit; the rest of it is not read."""
    return TooLarge(
        f"The request body is over the limit of {limit} bytes. Send less, or split the request.",
        headers={"Connection": "close"},
        limit=limit,
    )


def check_structure(body: bytes, max_depth: int) -> None:
    """Raise InvalidRequest when JSON nests deeper than `max_depth`, or has more than MOST_CONTAINERS objects and lists:
    an empty one takes thirty times as much memory as its two characters. Linear in the body, whatever is in it.
    """
    if body.count(b"[") + body.count(b"{") <= max_depth:
        return
    # Without escapes, what is between two quotes is a string; two quotes side by side change nothing of what is in one.
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = unescaped.translate(_STEPS, _MEANINGLESS).replace(b'""', b"")
    steps = b"".join(marks.split(b'"')[::2])
    if max(accumulate(memoryview(steps).cast("b")), default=0) > max_depth:
        raise InvalidRequest(f"The JSON nests deeper than {max_depth} levels.", code="too-deep")
    if steps.count(1) > MOST_CONTAINERS:
        raise InvalidRequest(f"The JSON has more than {MOST_CONTAINERS:,} objects and lists.", code="too-many-values")
