"""What the load goes to: which kgents it is, how it is, and the tenants that are made in it for the test."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import httpx2

from kgents.errors import Forbidden, Unavailable, Unprocessable
from kgents.load.driver import session
from kgents.load.resources import Local, Source
from kgents.load.traffic import RUNS_A_CYCLE, Tenant

MOST_RATE, MOST_QUOTA = 10**9, 10**12
"""Of the test's tenants: each request is checked against a rate and a quota, and passes."""
AT_ONCE = 16  # requests under way while the test is prepared
START = 90.0  # seconds


@dataclass(frozen=True, slots=True)
class Target:
    """A kgents: its address, a platform administrator's key, where its processes can be seen, and whether it runs from
    these sources.
    """

    url: str
    admin_key: str = field(repr=False)
    source: Source
    is_own: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """What the target said of itself at a moment; `version` is empty and `health` has a status `unreachable` where it
    said nothing.
    """

    version: str
    processes: Mapping[str, str]
    health: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def modes(self) -> dict[str, str]:
        """Whether each of its parts is embedded or external."""
        return {name: str(found.get("mode")) for name, found in self.health["components"].items()}


def allow(url: str, *, is_mine: bool) -> None:
    """Load may go to this machine, or where the user says that the host is theirs. Raises Forbidden, and Unprocessable
    for what is no address.
    """
    host = host_of(url)
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    if host == "localhost" or is_mine:
        return
    raise Forbidden(
        f"{host!r} is not this machine. Load takes a service away from its users: only where the host is yours, "
        "say so with --the-host-is-mine.",
        code="not-loopback",
    )


def host_of(url: str) -> str:
    """The host of an address. Raises Unprocessable for what is none."""
    try:
        parts = urlsplit(url)
        httpx2.URL(url)
        host = parts.hostname or ""
        if parts.scheme not in ("http", "https") or not host or parts.port == 0:
            raise ValueError
    except (ValueError, httpx2.InvalidURL):
        raise Unprocessable(f"{url!r} is not an address. It looks like http://127.0.0.1:8080", code="address") from None
    return host


async def look(target: Target) -> Look:
    """Which kgents it is and how it is, now."""
    async with session() as http:
        version = await _json(http, target.url + "/openapi.json")
    processes = await asyncio.to_thread(target.source.look)
    return Look(
        str((version.get("info") or {}).get("version", "")),
        {name: use.identity for name, use in sorted(processes.items())},
        await look_at_health(target.url),
    )


async def look_at_health(url: str) -> dict[str, Any]:
    """The health page; the status `unreachable` and no components where there is none."""
    async with session() as http:
        health = await _json(http, url + "/health/saas")
    return health if "components" in health else {"status": "unreachable", "components": {}}


async def _json(http: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, ConnectionError, ValueError):
        async with http.get(url, timeout=aiohttp.ClientTimeout(total=10)) as answer:
            found = await answer.json(content_type=None)
            return found if isinstance(found, dict) else {}
    return {}


@contextlib.asynccontextmanager
async def tenants(target: Target, count: int, sessions: int = RUNS_A_CYCLE) -> AsyncIterator[list[Tenant]]:
    """Tenants with an agent `echo`, two keys each, and so many sessions in all; archived afterwards. Raises Unavailable
    when the target refuses.
    """
    async with session() as http:
        api = _Api(http, target.url)
        made: list[Tenant] = []
        try:
            while len(made) < count:
                made.append(await api.tenant(target.admin_key))
            turn = asyncio.Semaphore(AT_ONCE)

            async def begin(tenant: Tenant) -> str:
                async with turn:
                    return str((await api.call("POST", "/v1/sessions", tenant.keys[0], {"agent": "echo"}))["id"])

            each = -(-sessions // count)
            begun = [await asyncio.gather(*(begin(tenant) for _ in range(each))) for tenant in made]
            yield [Tenant(tenant.id, tenant.keys, ids) for tenant, ids in zip(made, begun, strict=True)]
        finally:
            for tenant in made:
                await api.call("PATCH", f"/v1/tenants/{tenant.id}", target.admin_key, {"status": "deleted"})


@dataclass(frozen=True, slots=True)
class _Api:
    http: aiohttp.ClientSession
    url: str

    async def tenant(self, admin_key: str) -> Tenant:
        limits = {"requests_per_minute": MOST_RATE, "tokens_per_minute": MOST_RATE}
        quotas = dict.fromkeys(("runs", "input_tokens", "output_tokens"), MOST_QUOTA)
        body = {"name": f"loadtest-{uuid4().hex[:12]}", **limits, "quotas": quotas}
        tenant = str((await self.call("POST", "/v1/tenants", admin_key, body))["id"])
        path = f"/v1/tenants/{tenant}/api-keys"
        keys = [
            str((await self.call("POST", path, admin_key, {"name": f"load-{number}", "role": "owner"}))["token"])
            for number in range(2)
        ]
        await self.call("POST", "/v1/agents", keys[0], {"name": "echo", "model": "kgents:echo"})
        return Tenant(tenant, keys)

    async def call(self, method: str, path: str, key: str, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            headers = {"Authorization": f"Bearer {key}"}
            async with self.http.request(method, self.url + path, json=body, headers=headers) as answer:
                found: dict[str, Any] = await answer.json(content_type=None)
                if answer.status < 300:
                    return found
                why = found.get("detail", answer.reason)
        except (aiohttp.ClientError, TimeoutError, ConnectionError, ValueError, AttributeError) as error:
            why = str(error) or type(error).__name__
        raise Unavailable(
            f"The test could not be prepared or cleared away: {method} {path} at {self.url}: {why}", code="load-target"
        )


@contextlib.asynccontextmanager
async def own() -> AsyncIterator[Target]:
    """A `kgents up` of these sources with a folder of its own, for as long as the context lasts. Raises Unavailable
    when it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="kgents-load-") as folder:
        program = (sys.executable, "-m", "kgents.cli.main", "up", "--json", "--port", "0", "--data", f"{folder}/data")
        process = await asyncio.create_subprocess_exec(
            *program,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "KGENTS_CONFIG_DIR": f"{folder}/config"},
            start_new_session=True,  # Ctrl-C is for the test, which then stops it
        )
        try:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), START)
            if not line:
                _, said = await process.communicate()
                raise Unavailable(
                    f"kgents up did not start: {said.decode(errors='replace').strip()}", code="load-target"
                )
            facts = json.loads(line)
            yield Target(facts["url"], facts["admin_key"], Local(facts["pids"]), is_own=True)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            await process.communicate()


def sources() -> Path | None:
    """The git checkout that this kgents runs from, if it does."""
    root = Path(__file__).parents[3]
    return root if (root / ".git").exists() and (root / "pyproject.toml").exists() else None
