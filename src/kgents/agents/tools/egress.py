"""The one door through which tools and MCP clients reach other servers.

A tool's URL is a tenant's, or a model's, so it may point at this machine, at its neighbours or at a cloud's metadata.
A connection is made only to an address that was itself checked: the name is resolved once, all its addresses must be
public, and the socket goes to one of them, while Host and TLS keep the name. Each redirect is a new request and passes
the same checks. `KGENTS_EGRESS_ALLOW` names the hosts and networks that an operator exempts.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any
from weakref import WeakValueDictionary

import httpcore2
import httpx2

from kgents.agents.tools.addresses import Address, Network, is_public
from kgents.agents.tools.bounded import BoundedStream, Budget
from kgents.errors import Unprocessable

Resolver = Callable[[str, int], Awaitable[list[str]]]

PORTS = frozenset({80, 443, 8080, 8443})
MAX_REDIRECTS = 5
MAX_URL = 4096
MAX_HEADERS = 100
MAX_BYTES = 4_000_000

_CONNECT_SECONDS = 5.0
_RESOLVE_SECONDS = 5.0
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
_LOOKUPS_OF_TENANT = 4
_resolving = ThreadPoolExecutor(64, "egress-dns")
_turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # of tenants with a resolver in use


class EgressRefused(Unprocessable):
    """A request that tools may not make. The detail says why, but not what a private name resolves to."""

    title = "The address can't be reached from tools"
    code = "egress-refused"


def resolver_for(tenant_id: str) -> Resolver:
    """The addresses of a host name, by the system's resolver, which raises OSError or, after 5 s, TimeoutError.

    A tenant chooses which name servers are asked, and a lookup that is given up goes on in its thread for as long as
    the system tries. So that no tenant takes all threads, its lookups have a few at once, and the next ones wait until
    one of these is free again.
    """
    turns = _turns.setdefault(tenant_id, asyncio.Semaphore(_LOOKUPS_OF_TENANT))

    async def resolve(host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()

        def ended(_work: Future[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(turns.release)

        async with asyncio.timeout(_RESOLVE_SECONDS):
            await turns.acquire()
            work = _resolving.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
            work.add_done_callback(ended)
            found = await asyncio.wrap_future(work)
        return [str(info[4][0]) for info in found]

    return resolve


@dataclass(frozen=True, slots=True)
class EgressRules:
    """What may be reached. `hosts` and `networks` are exempt from every rule but that the scheme is http or https."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, allow: Iterable[str]) -> EgressRules:
        """The rules with the exemptions of `KGENTS_EGRESS_ALLOW`: host names, addresses and CIDR networks.

        Raises ValueError for an entry that is none of these.
        """
        return _parsed(tuple(allow))

    def allows_address(self, host: str, address: Address) -> bool:
        """Whether a connection for `host` may go to `address`."""
        return host in self.hosts or self._in_networks(address) or is_public(address)

    def check_url(self, url: httpx2.URL | str) -> None:
        """Raise EgressRefused for a URL that is not to be asked for, whatever its host resolves to."""
        try:
            parsed = httpx2.URL(url)
            host = host_of(parsed)
        except (httpx2.InvalidURL, UnicodeError, ValueError, TypeError) as error:
            raise EgressRefused("That is not a URL. It must look like https://host/path.") from error
        if len(str(parsed)) > MAX_URL:
            raise EgressRefused(f"The URL is longer than {MAX_URL} characters.")
        if parsed.scheme not in ("http", "https"):
            raise EgressRefused("The URL must begin with https://.")
        if parsed.userinfo:
            raise EgressRefused("The URL holds a user name or password. Leave them out.")
        literal = _literal(host)
        if literal is None and (not _HOST.fullmatch(host) or _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2])):
            raise EgressRefused("The URL's host is neither a host name nor an address in its usual notation.")
        if host in self.hosts or (literal and self._in_networks(literal)):
            return
        if literal and not is_public(literal):
            raise _unreachable(host)
        if parsed.scheme != "https":
            raise EgressRefused("The URL must begin with https://; plain http is not allowed.")
        if (parsed.port or 443) not in PORTS:
            raise EgressRefused(f"The URL's port is not allowed. Allowed are {', '.join(map(str, sorted(PORTS)))}.")

    def _in_networks(self, address: Address) -> bool:
        return any(address in network for network in self.networks if network.version == address.version)


@lru_cache(maxsize=64)
def _parsed(allow: tuple[str, ...]) -> EgressRules:
    hosts: set[str] = set()
    networks: list[Network] = []
    for entry in allow:
        text = entry.strip().lower()
        try:
            networks.append(ip_network(text.strip("[]"), strict=False))
        except ValueError:
            if not _HOST.fullmatch(text):
                raise ValueError(
                    f"KGENTS_EGRESS_ALLOW holds {entry!r}, which is neither a host name nor an address or network "
                    "(such as 10.0.0.0/8). Host names stand without a scheme, a port or wildcards."
                ) from None
            hosts.add(text.removesuffix("."))
    return EgressRules(frozenset(hosts), tuple(networks))


def host_of(url: httpx2.URL) -> str:
    """A URL's host as it goes on the wire: in ASCII, lower case, without the root's dot or an address's brackets."""
    return url.raw_host.decode("ascii").lower().removesuffix(".").strip("[]")


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _unreachable(host: str) -> EgressRefused:
    return EgressRefused(
        f"{host} does not lead to a public address. If it is a server of the operator's own, the operator can allow it "
        "with KGENTS_EGRESS_ALLOW."
    )


class _CheckedBackend(httpcore2.AsyncNetworkBackend):
    """Resolves a host, checks all of its addresses, and connects to one of those."""

    def __init__(self, rules: EgressRules, resolver: Resolver) -> None:
        self._rules = rules
        self._resolver = resolver
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        failure: Exception | None = None
        for address in await self._addresses(host.lower().removesuffix("."), port):
            try:
                return await self._network.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore2.ConnectError(f"{host} has no address")

    async def _addresses(self, host: str, port: int) -> list[Address]:
        literal = _literal(host)
        if literal is not None:
            found = [literal]
        else:
            try:
                found = list(dict.fromkeys(ip_address(text) for text in await self._resolver(host, port)))
            except (OSError, UnicodeError, ValueError, TimeoutError):
                # The same answer as for a private address: which internal names exist is not a tenant's business.
                raise _unreachable(host) from None
        if not found or not all(self._rules.allows_address(host, address) for address in found):
            raise _unreachable(host)
        return found[:4]

    async def connect_unix_socket(
        self,
        path: str,  # noqa: ARG002
        timeout: float | None = None,  # noqa: ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore2.AsyncNetworkStream:
        raise EgressRefused("Unix sockets can't be reached from tools.")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class EgressTransport(httpx2.AsyncHTTPTransport):
    """An HTTP transport that makes allowed requests only, and bounds what comes back.

    `budget` is what the answers from now on may hold together; without one, each may be MAX_BYTES long. `refused` is
    the last refusal, for callers whose client reports that as a failed connection.
    """

    def __init__(self, rules: EgressRules, *, resolver: Resolver, budget: Budget | None = None) -> None:
        # The base class would build a pool of its own around a new TLS context, which takes 20 ms.
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=_tls(), max_connections=8, network_backend=_CheckedBackend(rules, resolver)
        )
        self._rules = rules
        self.budget = budget
        self.refused: EgressRefused | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises EgressRefused for a request or an answer that breaks a rule; httpx2's errors otherwise."""
        try:
            self._rules.check_url(request.url)
            request.headers["accept-encoding"] = "gzip, identity"
            request.headers["host"] = request.url.netloc.decode("ascii")
            response = await super().handle_async_request(request)
            try:
                return self._bounded(response)
            except BaseException:
                await response.aclose()
                raise
        except EgressRefused as refused:
            self.refused = refused
            raise

    def _bounded(self, response: httpx2.Response) -> httpx2.Response:
        if len(response.headers.raw) > MAX_HEADERS:
            raise EgressRefused(f"The server sent more than {MAX_HEADERS} headers.")
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("gzip", "x-gzip", "identity", ""):
            raise EgressRefused("The server compressed its answer in a way that was not asked for.")
        headers = [
            (name, value)
            for name, value in response.headers.raw
            if name.lower() not in (b"content-encoding", b"content-length", b"set-cookie")
        ]
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        return httpx2.Response(
            response.status_code,
            headers=headers,
            stream=BoundedStream(stream, self.budget or Budget(MAX_BYTES), gzip=encoding.endswith("gzip")),
            extensions=response.extensions,
        )


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


def egress_client(
    transport: EgressTransport, *, headers: dict[str, str] | None = None, timeout: float = 10.0
) -> httpx2.AsyncClient:
    """A client for one tool's requests: no proxy, cookie or credential of this process, `timeout` seconds of silence at
    most. It follows no redirect by itself, and closes `transport`.
    """
    return httpx2.AsyncClient(
        transport=transport,
        trust_env=False,
        headers={"user-agent": "kgents", **(headers or {})},
        timeout=httpx2.Timeout(timeout, connect=_CONNECT_SECONDS),
        max_redirects=MAX_REDIRECTS,
    )


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer: its body as far as it was read, and whether that is all of it."""

    status: int
    content_type: str
    body: bytes
    complete: bool


async def fetch(client: httpx2.AsyncClient, url: str, *, max_bytes: int) -> Fetched:
    """GET `url`, following up to 5 redirects, each checked. Reads `max_bytes` of the body at most.

    Raises EgressRefused, httpx2.HTTPError.
    """
    async with client.stream("GET", url, follow_redirects=True) as response:
        body = bytearray()
        complete = True
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > max_bytes:
                complete = False
                break
        return Fetched(
            response.status_code, response.headers.get("content-type", ""), bytes(body[:max_bytes]), complete
        )
