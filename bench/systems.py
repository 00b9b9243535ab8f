"""What is measured, as real processes: a whole kgents on either database, and what it is compared with."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx2
import orjson

from bench.client import post
from kgents.store.migrate import migrate
from kgents.tenants.model import MAX_RATE
from tests.support import node
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer, find_binaries
from tests.support.process import ServerProcess
from tests.support.tenants import Tenant, tenant_of
from tests.support.up import Up
from tests.support.waiting import wait_until

Database = Literal["sqlite", "postgresql"]
PROGRAM = "kgents.cli.main"

LIMITLESS = {"requests_per_minute": MAX_RATE, "tokens_per_minute": MAX_RATE}
"""Rates that are checked with every request and reached by none."""

QUOTAS = {"runs": 10**12, "input_tokens": 10**12, "output_tokens": 10**12}
"""Quotas that every request reserves from and none exhausts."""

SAID = "Hello, kgents. How many tokens has this sentence?"
PORTKEY = Path(__file__).parent / "portkey"


@contextmanager
def postgres(database: Database) -> Iterator[tuple[PostgresServer | None, str]]:
    """A PostgreSQL with its durable defaults and an empty database in it, where `database` asks for one."""
    if database == "sqlite":
        yield None, ""
        return
    binaries = find_binaries()
    if binaries is None:
        raise SystemExit("PostgreSQL 15 or newer is not installed; scripts/test-packages does it.")
    server = PostgresServer(binaries, migrate, durable=True)
    try:
        yield server, server.create_empty_database()
    finally:
        server.remove()


@contextmanager
def kgents(database: Database = "sqlite", *, program: str = PROGRAM, **settings: str) -> Iterator[Up]:
    """A `kgents up` on a folder and a database of its own, with the settings that it has by itself, and these KGENTS_
    ones. `program` is the module that is run.
    """
    with postgres(database) as (server, name), kgents_on(server, name, program=program, **settings) as up:
        yield up


@contextmanager
def kgents_on(server: PostgresServer | None, name: str, *, program: str = PROGRAM, **settings: str) -> Iterator[Up]:
    """As `kgents`, on a database of this server (SQLite without one)."""
    environment = {f"KGENTS_{name}": value for name, value in settings.items()}
    if server is not None:
        environment |= server.environment(name)
    with tempfile.TemporaryDirectory(prefix="kgents-bench-") as folder, contextlib.ExitStack() as stack:
        up = Up(Path(folder) / "data", environment=environment, module=program)
        up.start()
        stack.callback(up.stop)
        yield up


@contextmanager
def tenants(up: Up, count: int) -> Iterator[list[Tenant]]:
    """Tenants whose requests are checked against rates and quotas, and pass."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(tenant_of(up, **LIMITLESS, quotas=QUOTAS)) for _ in range(count)]


def chat_request(url: str, key: str = "", model: str = "echo", **headers: str) -> bytes:
    """The chat completion request that all of them are sent."""
    body = orjson.dumps({"model": model, "messages": [{"role": "user", "content": SAID}]})
    if key:
        headers["authorization"] = f"Bearer {key}"
    return post(f"{url}/v1/chat/completions", body, headers)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    url: str
    pid: int


@contextmanager
def module(name: str) -> Iterator[Server]:
    """One of this package's servers, in a process of its own."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    with listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, "-m", name, str(listener.fileno())]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()], env=os.environ.copy())
    try:
        wait_until(lambda: answers(url), seconds=30, what=f"{name} answers")
        yield Server(url, process.pid)
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def portkey() -> Iterator[Server]:
    """Portkey's gateway, one process, as `npm ci` installs it."""
    if not (PORTKEY / "node_modules" / "@portkey-ai" / "gateway").exists():
        command = [*node.NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(command, cwd=PORTKEY, env=node.environment(), check=True, timeout=300)
    port = free_port()
    script = PORTKEY / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    with tempfile.TemporaryDirectory(prefix="kgents-bench-") as folder:
        log = Path(folder) / "portkey.log"
        command = [str(node.NODE), str(script), f"--port={port}", "--headless"]
        process = ServerProcess(command, log)
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: answers(url), seconds=30, what=f"Portkey's gateway answers: {process.log}")
            yield Server(url, process.pid)
        finally:
            process.stop()


def answers(url: str) -> bool:
    """Whether something speaks HTTP there."""
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(url, trust_env=False, timeout=5).status_code > 0
    return False
