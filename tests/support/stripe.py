"""Stripe's API on loopback, as much of it as kgents uses, over an account in memory.

It does what docs.stripe.com promises of these requests, and takes the parameters that kgents may send; any other is
unknown to it, as one that Stripe does not have is to Stripe. tests/contract/billing holds it against Stripe's own
stripe-mock.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, NamedTuple, Self

from kgents.clock import SECOND, Clock, SystemClock
from tests.support.stripe_account import API_VERSION, DAY, NOBODY, Account, Object
from tests.support.stripe_parameters import (
    Kind,
    Refused,
    choice,
    clause,
    currency,
    decoded,
    each,
    fields,
    flag,
    metadata,
    text,
    whole,
)

Misbehaviour = Literal["cut-before", "cut-after", "500-after", "429", "hang"]

_PAGE = {"limit": whole(1, 100), "starting_after": text()}
_MOMENT = whole(0)
_LINE = fields(
    "amount",
    amount=whole(),
    description=text(),
    metadata=metadata,
    period=fields("start", "end", start=_MOMENT, end=_MOMENT),
)
_ROUTES: tuple[tuple[str, str, Kind, Callable[..., Object]], ...] = (
    (
        "POST",
        "/v1/customers",
        fields(name=text(256), description=text(), email=text(512), metadata=metadata),
        Account.create_customer,
    ),
    ("GET", "/v1/customers", fields(**_PAGE), Account.list_customers),
    (
        "GET",
        "/v1/customers/search",
        fields("query", query=clause, limit=whole(1, 100), page=whole(0)),
        Account.search_customers,
    ),
    ("GET", "/v1/customers/([^/]+)", fields(), Account.retrieve_customer),
    ("DELETE", "/v1/customers/([^/]+)", fields(), Account.delete_customer),
    (
        "POST",
        "/v1/invoices",
        fields(
            "customer",
            customer=text(),
            currency=currency,
            collection_method=choice("charge_automatically", "send_invoice"),
            days_until_due=whole(0),
            auto_advance=flag,
            pending_invoice_items_behavior=choice("exclude", "include"),
            description=text(1500),
            metadata=metadata,
        ),
        Account.create_invoice,
    ),
    (
        "GET",
        "/v1/invoices",
        fields(customer=text(), status=choice("draft", "open", "void", "paid", "uncollectible"), **_PAGE),
        Account.list_invoices,
    ),
    ("GET", "/v1/invoices/([^/]+)", fields(), Account.retrieve_invoice),
    ("DELETE", "/v1/invoices/([^/]+)", fields(), Account.delete_invoice),
    (
        "POST",
        "/v1/invoices/([^/]+)/add_lines",
        fields("lines", lines=each(_LINE), invoice_metadata=metadata),
        Account.add_lines,
    ),
    ("GET", "/v1/invoices/([^/]+)/lines", fields(**_PAGE), Account.list_lines),
    ("POST", "/v1/invoices/([^/]+)/finalize", fields(auto_advance=flag), Account.finalize_invoice),
    ("POST", "/v1/invoices/([^/]+)/pay", fields(paid_out_of_band=flag), Account.pay_invoice),
    ("POST", "/v1/invoices/([^/]+)/void", fields(), Account.void_invoice),
    ("POST", "/v1/invoices/([^/]+)/mark_uncollectible", fields(), Account.mark_invoice_uncollectible),
)


class Request(NamedTuple):
    """A request: its path is without the query, its key that of the header Idempotency-Key."""

    method: str
    path: str
    key: str | None


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Saved:
    at: int
    request: Request
    parameters: Object
    reply: _Reply


class FakeStripe(Account):
    """The account with its API at `url`, for who has the key `api_key`. As a context manager it runs for as long as the
    context lasts; started again after a stop, it has its port and all that it knew.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock or SystemClock())
        self.api_key = "sk_test_fake"
        self.forget_after = float(DAY)
        """For how many seconds a result is kept under its idempotency key."""
        self.requests: list[Request] = []
        self._saved: dict[str, _Saved] = {}
        self._plan: Callable[[Request], Misbehaviour | None] | None = None
        self._port = 0
        self._server: _Server | None = None
        self._stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Be there, at the same port as before."""
        self._stopping = threading.Event()
        self._server = _Server(("127.0.0.1", self._port), self._handler())
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Be away: open connections are cut, new ones are refused."""
        if self._server is not None:
            self._stopping.set()
            self._server.shutdown()
            self._server.cut()
            self._server.server_close()
            self._server = None

    def misbehave(self, plan: Callable[[Request], Misbehaviour | None] | None) -> None:
        """From now on, ask `plan` how to treat each request; None treats it well.

        `cut-before` closes the connection without having done the work, `cut-after` having done it; `500-after` does
        the work, and answers and saves an error; `429` refuses; `hang` neither works nor answers.
        """
        with self._lock:
            self._plan = plan

    def signed(self, event: Object, secret: str | Sequence[str], at: int | None = None) -> tuple[bytes, str]:
        """The body and the Stripe-Signature of an event's delivery at a moment (in Unix seconds; else by the clock),
        signed with one secret or with each of several: https://docs.stripe.com/webhooks#verify-manually.
        """
        body = json.dumps(event, indent=2).encode()
        moment = self.clock.now() // SECOND if at is None else at
        signatures = (
            hmac.new(each.encode(), b"%d.%b" % (moment, body), hashlib.sha256).hexdigest()
            for each in ([secret] if isinstance(secret, str) else secret)
        )
        return body, ",".join([f"t={moment}", *(f"v1={signature}" for signature in signatures)])

    def _treat(self, request: Request, authorization: str, form: str) -> _Reply | None:
        headers = {"Request-Id": f"req_{secrets.token_hex(7)}"}
        with self._lock:
            self.requests.append(request)
            how = self._plan(request) if self._plan else None
            if how == "429":
                return _refusal(Refused("Request rate limit exceeded.", 429, code="rate_limit"), headers)
            if how not in ("cut-before", "hang"):
                reply = self._reply(request, authorization, form, headers, broken=how == "500-after")
                return None if how == "cut-after" else reply
        if how == "hang":
            self._stopping.wait()
        return None

    def _reply(
        self, request: Request, authorization: str, form: str, headers: Mapping[str, str], *, broken: bool
    ) -> _Reply:
        key = request.key if request.method == "POST" else None
        try:
            self._authenticate(authorization)
            takes, work, ids = _route(request)
            parameters = decoded(form)
            if saved := self._known(key, request, parameters):
                again = {**saved.reply.headers, **headers, "Idempotent-Replayed": "true"}
                return replace(saved.reply, headers=again)
            given = takes("", parameters)
        except Refused as refused:
            return _refusal(refused, headers)
        if key:
            headers = {**headers, "Idempotency-Key": key, "Original-Request": headers["Request-Id"]}
        self._cause = {"id": headers["Request-Id"], "idempotency_key": key}
        try:
            reply = _Reply(200, json.dumps(work(self, *ids, **given), indent=2).encode(), headers)
        except Refused as refused:
            reply = _refusal(refused, headers)
        finally:
            self._cause = NOBODY
        if broken:
            unknown = Refused("An unknown error occurred", 500, kind="api_error")
            reply = _refusal(unknown, {**headers, "Stripe-Should-Retry": "false"})
        if key:
            self._saved[key] = _Saved(self.clock.now(), request, parameters, reply)
        return reply

    def _authenticate(self, authorization: str) -> None:
        scheme, _, credentials = authorization.partition(" ")
        if scheme == "Basic":
            with suppress(binascii.Error, UnicodeDecodeError):
                credentials = base64.b64decode(credentials).decode().removesuffix(":")
        if scheme not in ("Basic", "Bearer"):
            raise Refused("You did not provide an API key.", 401)
        if credentials != self.api_key:
            raise Refused(f"Invalid API Key provided: {credentials[:8]}****", 401)

    def _known(self, key: str | None, request: Request, parameters: Object) -> _Saved | None:
        # https://docs.stripe.com/api/idempotent_requests
        if key is None:
            return None
        if len(key) > 255:
            raise Refused("Idempotency keys can have up to 255 characters.")
        saved = self._saved.get(key)
        if saved is None or self.clock.now() - saved.at >= self.forget_after * SECOND:
            return None
        if saved.request != request:
            used = f"for the same endpoint they were first used for ('{saved.request.path}' vs '{request.path}')"
        elif saved.parameters != parameters:
            used = "with the same parameters they were first used with"
        else:
            return saved
        raise Refused(
            f"Keys for idempotent requests can only be used {used}. Try using a key other than '{key}' if you meant to "
            "execute a different request.",
            kind="idempotency_error",
        )

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stripe = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer leaves as one piece

            def do_GET(self) -> None:
                path, _, query = self.path.partition("?")
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(errors="replace")
                reply = stripe._treat(
                    Request(self.command, path, self.headers.get("Idempotency-Key")),
                    self.headers.get("Authorization") or "",
                    body or query,
                )
                if reply is None:
                    self.close_connection = True
                    with suppress(OSError):
                        self.connection.shutdown(socket.SHUT_RDWR)
                    return
                headers = {
                    "Content-Type": "application/json",
                    "Content-Length": str(len(reply.body)),
                    "Stripe-Version": self.headers.get("Stripe-Version") or API_VERSION,
                }
                self.send_response(reply.status)
                for name, value in {**headers, **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            do_POST = do_GET  # noqa: N815 - the names that http.server calls
            do_DELETE = do_GET  # noqa: N815 - as above

            def log_message(self, *_: Any) -> None:
                return

        return Handler


class _Server(ThreadingHTTPServer):
    """One that can cut off whoever is connected."""

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._open: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def cut(self) -> None:
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _route(request: Request) -> tuple[Kind, Callable[..., Object], tuple[str, ...]]:
    for method, path, takes, work in _ROUTES:
        if method == request.method and (found := re.fullmatch(path, request.path)):
            return takes, work, found.groups()
    raise Refused(f"Unrecognized request URL ({request.method}: {request.path}).", 404)


def _refusal(refused: Refused, headers: Mapping[str, str] | None = None) -> _Reply:
    return _Reply(refused.status, json.dumps({"error": refused.error}, indent=2).encode(), headers or {})
