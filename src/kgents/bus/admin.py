"""The connection of an operator's command: it lasts as long as the command, and nothing is retried for ever."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from nats import errors as nats_errors
from nats.aio.client import Client

from kgents.bus.connection import once, servers_of
from kgents.bus.failures import describe
from kgents.bus.model import BusUnavailable
from kgents.config import Settings

SILENCE = 30.0  # seconds without a word from the server, after which it is given up
NO_STREAM = 10059
NO_MESSAGE = 10037


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Client]:
    """A client of the bus. Whatever the server does not answer in the block ends it as BusUnavailable. Raises
    Unprocessable for settings that name no server.
    """
    servers = servers_of(settings)
    client: Client | None = None
    reason: Exception | None = None

    async def failed(error: Exception) -> None:
        nonlocal reason
        reason = error

    try:
        options = once(settings)
        client = Client()
        await client.connect(
            servers,
            **options,
            connect_timeout=5,
            error_cb=failed,
        )
        yield client
    except (nats_errors.Error, OSError, TimeoutError) as error:
        told = describe(reason or error, servers, settings.nats_password.get_secret_value())
        raise BusUnavailable(told) from error
    finally:
        if client is not None:
            with contextlib.suppress(nats_errors.Error, OSError):
                await client.close()


async def api(client: Client, name: str, body: Any = None, *, none: int = NO_STREAM) -> dict[str, Any]:
    """Call JetStream's API `$JS.API.<name>`; `none` is the number of the refusal that is an answer, too (there is no
    such stream). Raises BusUnavailable where JetStream refuses otherwise.
    """
    answer = await client.request(f"$JS.API.{name}", orjson.dumps(body) if body else b"", timeout=SILENCE)
    found: dict[str, Any] = orjson.loads(answer.data)
    if "error" in found and found["error"].get("err_code") != none:
        raise BusUnavailable(f"JetStream refused {name} ({found['error'].get('description')}).")
    return found


async def info(client: Client, stream: str) -> dict[str, Any]:
    """What JetStream says of a stream: without `config` where there is none."""
    return await api(client, f"STREAM.INFO.{stream}")
