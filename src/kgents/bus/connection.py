"""One connection to NATS that is kept up for ever.

nats-py's own reconnecting is switched off, and each connection gets a client of its own (docs/decisions/0004-bus.md
says why): what is in flight fails the moment its connection is lost, nothing is buffered and sent much later, an error
that the server closes a connection with is not final, and a frozen server's socket is dropped, not waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from kgents.bus.failures import describe
from kgents.bus.model import BusState, BusUnavailable
from kgents.clock import Clock
from kgents.config import Settings
from kgents.errors import TooLarge, Unprocessable

log = structlog.get_logger(__name__)

HEARTBEAT = 1.0  # seconds between two looks at an idle connection
HEARTBEAT_TIMEOUT = 1.5  # a server that does not answer for so long is gone
CONNECT_TIMEOUT = 2.0
RETRY_FIRST, RETRY_MOST = 0.1, 1.0  # seconds between attempts to connect, before jitter
BUFFER = 16 * 1024 * 1024  # bytes written faster than the server reads, before publishers wait


def _nothing() -> None:
    pass


class Subscription:
    """A subject that is subscribed to on this connection and on each that follows it. No callback may block."""

    def __init__(
        self,
        connection: Connection,
        subject: str,
        handler: Callable[[Msg], None],
        *,
        on_connect: Callable[[], None] = _nothing,
        on_lost: Callable[[], None] = _nothing,
    ) -> None:
        """`handler` is called with each message; `on_connect` once a new connection is ready, and when the bus is
        closed; `on_lost` when a connection ends.
        """
        self.on_connect = on_connect
        self.on_lost = on_lost
        self._connection = connection
        self._subject = subject
        self._handler = handler
        self._native: Any = None
        self._open = True
        connection.subscriptions.add(self)

    async def open(self) -> None:
        """Subscribe now, if there is a connection."""
        client = self._connection.client
        if client is not None:
            with contextlib.suppress(nats_errors.Error, OSError):  # then the next connection does it
                await asyncio.shield(self.attach(client))

    async def attach(self, client: Client) -> None:
        """Subscribe on a connection."""
        handler = self._handler

        async def deliver(message: Msg) -> None:
            handler(message)

        native = await client.subscribe(self._subject, cb=deliver)
        self._native = native
        if not self._open:
            await native.unsubscribe()

    async def close(self) -> None:
        """Get no more messages."""
        self._open = False
        self._connection.subscriptions.discard(self)
        if self._native is not None:
            with contextlib.suppress(nats_errors.Error, OSError):
                await self._native.unsubscribe()


class Connection:
    """Keeps a connection and says in `state` how it is."""

    def __init__(self, settings: Settings, clock: Clock, prepare: Callable[[], Awaitable[None]]) -> None:
        """`prepare` runs on each new connection before it counts as connected, and after `doubt`; it is tried again
        when it raises. Raises Unprocessable for settings that name no server.
        """
        self._servers = servers_of(settings)
        self._settings = settings
        self._clock = clock
        self._prepare = prepare
        self.state = BusState(False, clock.now(), None)
        self.closed = False
        self.client: Client | None = None
        self.subscriptions: set[Subscription] = set()
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        self._doubted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._discards: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to connect, in the background."""
        self._task = asyncio.create_task(self._keep_connected(), name="bus-connection")

    def doubt(self) -> None:
        """What was prepared seems to be gone on the server: prepare it again, soon."""
        self._doubted.set()

    async def close(self, timeout: float = 2.0) -> None:
        """Send what was handed over, for at most `timeout` seconds, and disconnect. It can't be started again."""
        self.closed = True
        if self.client is not None and self.state.connected:
            with contextlib.suppress(nats_errors.Error, OSError, TimeoutError):
                async with asyncio.timeout(timeout):
                    await self.client.flush()
        while self._task and not self._task.done():
            # Python 3.11's wait_for, which nats-py uses, forgets that it was cancelled when its answer comes with it.
            self._task.cancel()
            await asyncio.wait([self._task], timeout=0.1)
        if self._discards:
            await asyncio.wait(self._discards, timeout=timeout)
        self._set_state(False, "it was closed.")
        self._connected.set()
        for subscription in list(self.subscriptions):
            subscription.on_connect()

    async def wait(self) -> None:
        """Wait until there is a connection, or the bus is closed."""
        await self._connected.wait()

    async def publish(
        self, subject: str, payload: bytes = b"", *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Send a message: that it is on its way is all that is known then. Raises BusUnavailable, TooLarge."""
        client = self.client
        if client is None:
            await asyncio.sleep(0)  # so that a caller who tries again at once does not keep us from connecting
            raise self.unavailable()
        try:
            await client.publish(subject, payload, reply=reply, headers=headers)
        except nats_errors.MaxPayloadError as error:
            raise TooLarge(
                f"A message of {len(payload)} bytes is over the event bus's limit of {client.max_payload} bytes. "
                "Send less, or raise max_payload in the NATS server's configuration."
            ) from error
        except (nats_errors.Error, OSError) as error:
            raise BusUnavailable(self._describe(error)) from error

    def unavailable(self) -> BusUnavailable:
        """Why there is no connection, as an error."""
        return BusUnavailable(self.state.error or "it has not been reached yet.")

    async def _keep_connected(self) -> None:
        delay = RETRY_FIRST
        while not self.closed:
            client = Client()
            try:
                await self._connect(client)
                delay = RETRY_FIRST
                await self._serve(client)
            except Exception as error:  # whatever nats-py raises, the answer is to connect again
                self._set_state(False, self._describe(error))
            finally:
                self._drop(client)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311
            delay = min(delay * 1.6, RETRY_MOST)

    async def _connect(self, client: Client) -> None:
        self._lost = lost = asyncio.Event()
        reason: Exception | None = None

        async def failed(error: Exception) -> None:
            nonlocal reason
            reason = error
            if isinstance(error, nats_errors.StaleConnectionError):
                lost.set()

        async def ended() -> None:
            lost.set()

        try:
            # A frozen server accepts a connection and then says nothing; nats-py tries each server twice.
            async with asyncio.timeout(4 * CONNECT_TIMEOUT * len(self._servers)):
                await client.connect(
                    self._servers,
                    **once(self._settings),
                    connect_timeout=CONNECT_TIMEOUT,  # type: ignore[arg-type]
                    ping_interval=86_400,  # _serve looks after the connection
                    pending_size=BUFFER,
                    flush_timeout=HEARTBEAT_TIMEOUT,
                    error_cb=failed,
                    closed_cb=ended,
                )
        except nats_errors.NoServersError as error:
            raise (reason or error) from None

    async def _serve(self, client: Client) -> None:
        """Use a connection until the bus is closed, or it is lost; then raise why."""
        attached: set[Subscription] = set()
        while missing := self.subscriptions - attached:
            for subscription in missing:
                await subscription.attach(client)
            attached |= missing
        self.client = client
        preparing = asyncio.create_task(self._make_ready())
        try:
            # The bus is asked whether it is closed, since a cancellation may be forgotten: see `close`.
            while not self.closed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT):
                        await self._lost.wait()
                if self._lost.is_set() or client.is_closed:
                    raise client.last_error or nats_errors.UnexpectedEOF()
                await client.rtt(HEARTBEAT_TIMEOUT)  # type: ignore[arg-type]
        finally:
            preparing.cancel()

    async def _make_ready(self) -> None:
        while True:
            try:
                await self._prepare()
                break
            except Exception as error:
                self._set_state(False, self._describe(error))
                await asyncio.sleep(RETRY_MOST / 2)
        self._set_state(True, None)
        self._connected.set()
        for subscription in list(self.subscriptions):
            subscription.on_connect()
        while True:
            await self._doubted.wait()
            self._doubted.clear()
            try:
                await self._prepare()
            except Exception:  # a stream may have no leader now; whoever needs it hears that by itself
                self._doubted.set()
            await asyncio.sleep(RETRY_MOST / 2)

    def _drop(self, client: Client) -> None:
        """Forget a connection, and close it in the background."""
        was_used = self.client is client
        self.client = None
        self._connected.clear()
        if self.state.connected:
            self._set_state(False, "the connection was lost.")
        if was_used:
            for subscription in list(self.subscriptions):
                subscription.on_lost()
        task = asyncio.create_task(_discard(client))
        self._discards.add(task)
        task.add_done_callback(self._discards.discard)

    def _set_state(self, connected: bool, error: str | None) -> None:
        before = self.state
        since = before.since if connected == before.connected else self._clock.now()
        self.state = BusState(connected, since, error)
        if connected and not before.connected:
            log.info("bus connected")
        elif not self.closed and not connected and error != before.error:
            log.warning("bus not available", reason=error)

    def _describe(self, error: Exception) -> str:
        return describe(error, self._servers, self._settings.nats_password.get_secret_value())


def servers_of(settings: Settings) -> list[str]:
    """The URLs of the bus's servers. Raises Unprocessable where one is none; what it is may hold a password."""
    servers = [server.strip() for server in settings.nats_url.split(",")]
    for server in servers:
        try:
            url = urlsplit(server if "://" in server else f"nats://{server}")
            is_address = bool(url.hostname) and url.port != 0
        except ValueError:
            is_address = False
        if not is_address:
            raise Unprocessable(
                "The setting KGENTS_NATS_URL can't be used: it is not nats://HOST:PORT, or several of them with commas "
                "between.",
                code="setting",
            )
    return servers


def once(settings: Settings) -> dict[str, Any]:
    """How nats-py is to connect: as whom, and twice to each server, not for ever. Raises BusUnavailable as
    `trusting`.
    """
    return {
        "name": settings.process_name or "kgents",
        "user": settings.nats_user or None,
        "password": settings.nats_password.get_secret_value() or None,
        "tls": trusting(settings.nats_ca_file),
        "allow_reconnect": False,
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": 0.1,
    }


def trusting(ca_file: Path | None) -> ssl.SSLContext | None:
    """TLS with servers whose certificates these authorities signed, and no others; None leaves it to the server's URL.

    Raises BusUnavailable where the file can't be read. It is read for each connection, so that a new one needs no
    restart.
    """
    if ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise BusUnavailable(
            f"{ca_file}, which KGENTS_NATS_CA_FILE names, is no file with certificates that can be read "
            f"({error.strerror or error})."
        ) from None


async def _discard(client: Client) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(1):
            await client.close()
    # Closing waits until the peer has read what was written, which a frozen one never does.
    writer = getattr(getattr(client, "_transport", None), "_io_writer", None)
    if writer is not None:
        writer.transport.abort()
