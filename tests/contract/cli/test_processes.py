"""An installation of separate processes, configured by variables only."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support.cli import COMMAND, Cli
from tests.support.nats import NatsServer
from tests.support.ports import free_port
from tests.support.waiting import wait_until

PERIOD = ("--from", "2026-01-01", "--to", "2100-01-01", "--window", "month")


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def installation(tmp_path: Path, nats_server: NatsServer) -> Cli:
    """`kgents` with the variables of an installation with its own database, bus and meter; nothing runs yet."""
    (tmp_path / "meter").mkdir()
    return Cli(
        tmp_path,
        KGENTS_DATABASE_URL=f"sqlite:///{tmp_path / 'kgents.db'}",
        KGENTS_PEPPER="5ca1ab1e" * 8,
        KGENTS_DATA_DIR=str(tmp_path / "meter"),
        KGENTS_NATS_URL=nats_server.url,
        KGENTS_NATS_USER=nats_server.user,
        KGENTS_NATS_PASSWORD=nats_server.password,
        KGENTS_NATS_MONITOR_URL=nats_server.monitor_url,
        KGENTS_METER_URL=f"http://127.0.0.1:{free_port()}",
        KGENTS_METER_TOKEN="a token of the meter",
    )


def test_migrate_and_three_processes_make_a_working_system(installation: Cli) -> None:
    assert installation("migrate").stderr == "applied 0001\n"
    assert "up to date" in installation("migrate").stderr
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    meter_port = installation.environment["KGENTS_METER_URL"].rpartition(":")[2]
    ports = {"meter": meter_port, "worker": str(free_port()), "api": str(port)}
    processes = {
        kind: _serve(installation, kind, KGENTS_PORT=ports[kind], KGENTS_METRICS_PORT=str(free_port()))
        for kind in ("meter", "worker", "api")
    }
    try:
        wait_until(lambda: _healthy(url), seconds=60, what="the API is healthy")
        admin = installation.json("key", "bootstrap", "operator")["token"]
        user = Cli(installation.folder, KGENTS_URL=url, KGENTS_ADMIN_KEY=admin, KGENTS_API_KEY=admin)
        tenant = user.json("tenant", "create", "acme")["id"]
        key = user.json("key", "create", "first", "--role", "owner", "--tenant", tenant)["token"]
        user = Cli(installation.folder, KGENTS_URL=url, KGENTS_API_KEY=key)
        user.json("agent", "create", "parrot")
        assert user("chat", "parrot", "hello there").stdout == "hello there\n"
        run = user.json("run", "create", "parrot", "from the worker", "--background")["id"]
        assert b"run.completed" in user("run", "events", run).stdout.encode()
        wait_until(lambda: _agreed(installation), seconds=60, what="ledger and meter agree")
    finally:
        statuses = {}
        for kind, process in reversed(processes.items()):
            process.send_signal(signal.SIGTERM)
            try:
                statuses[kind] = process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                statuses[kind] = process.wait()
    assert statuses == {"api": 0, "worker": 0, "meter": 0}, _logs(installation)


@pytest.mark.parametrize("kind", ["api", "worker"])
def test_a_process_before_migrate_says_what_to_run(installation: Cli, kind: str) -> None:
    done = installation("serve", kind, KGENTS_PORT=str(free_port()), KGENTS_METRICS_PORT=str(free_port()))
    assert done.status == 1
    assert "kgents migrate" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_key_before_migrate_says_what_to_run(installation: Cli) -> None:
    assert "kgents migrate" in installation("key", "bootstrap").complaint


@pytest.mark.parametrize(
    ("command", "variable", "value"),
    [
        ("serve api", "KGENTS_PORT", "http"),
        ("serve worker", "KGENTS_PROVIDERS", "{"),
        ("serve api", "KGENTS_PEPPER", "short"),
        ("key bootstrap", "KGENTS_PEPPER", "UNSET"),
        ("migrate", "KGENTS_DATABASE_URL", "UNSET"),
        ("migrate", "KGENTS_DATABASE_URL", "oracle://db/kgents"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(installation: Cli, command: str, variable: str, value: str) -> None:
    assert variable.removesuffix("S") in installation(*command.split(), **{variable: value}).complaint


def _serve(installation: Cli, kind: str, **environment: str) -> subprocess.Popen[bytes]:
    with (installation.folder / f"{kind}.log").open("wb") as log:
        return subprocess.Popen(
            [*COMMAND, "serve", kind],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **installation.environment, **environment},
        )


def _healthy(url: str) -> bool:
    try:
        return bool(httpx2.get(f"{url}/health/saas", timeout=5, trust_env=False).json()["status"] == "ok")
    except httpx2.TransportError:
        return False


def _agreed(installation: Cli) -> bool:
    done = installation("usage", "reconcile", *PERIOD)
    return done.status == 0 and "3 windows compared" in done.stderr


def _logs(installation: Cli) -> str:
    return "".join(path.read_text()[-2000:] for path in sorted(installation.folder.glob("*.log")))
