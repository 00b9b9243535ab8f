"""The health page tells what is: each dependency is broken for real, and the page says so within 5 s, and recovers."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.integration.system.test_durability import hello
from tests.support.postgres import PostgresServer
from tests.support.up import UNMEASURED, Up
from tests.support.waiting import wait_until

SECONDS = 5.0


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def system(dialect: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One for all tests here, of which each breaks something that comes back, and waits for that at its begin."""
    environment = dict(UNMEASURED)
    if dialect == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        environment |= server.environment(server.create_database())
    up = Up(tmp_path_factory.mktemp("system") / "data", environment=environment).start()
    yield up
    up.stop()


@contextmanager
def frozen(up: Up, process: str) -> Iterator[None]:
    pid = up.pid(process)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def all_is_well(up: Up) -> bool:
    return up.health()["status"] == "ok"


def test_all_is_well_at_first_with_every_field_filled(system: Up) -> None:
    wait_until(lambda: all_is_well(system), seconds=SECONDS)
    for name in ("sql", "nats", "meter"):
        component = system.health()["components"][name]
        assert component["status"] == "connected"
        assert component["latency_ms"] > 0
        assert component["last_ok"].endswith("Z")


@pytest.mark.parametrize("process", ["nats", "meter"])
def test_a_frozen_dependency_is_disconnected_and_recovers(system: Up, process: str) -> None:
    wait_until(lambda: all_is_well(system), seconds=SECONDS)
    with frozen(system, process):
        wait_until(lambda: system.component(process) == "disconnected", seconds=SECONDS)
        page = httpx2.get(f"{system.url}/health/saas")
        assert (page.status_code, page.json()["status"]) == (200, "degraded")
        assert httpx2.get(f"{system.url}/readyz").status_code == 200
        with system.client() as client:
            client.post("/v1/chat/completions", json=hello()).raise_for_status()
    wait_until(lambda: all_is_well(system), seconds=SECONDS)


@pytest.mark.parametrize("process", ["nats", "meter"])
def test_a_killed_dependency_comes_back(system: Up, process: str) -> None:
    wait_until(lambda: all_is_well(system), seconds=SECONDS)
    before = system.pid(process)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: system.pid(process) != before and all_is_well(system), seconds=SECONDS)


def test_liveness_asks_nothing_else(system: Up) -> None:
    with frozen(system, "nats"), frozen(system, "meter"):
        assert httpx2.get(f"{system.url}/health").json() == {"status": "ok"}
        assert "[+]" in httpx2.get(f"{system.url}/livez?verbose").text


def test_verbose_readiness_lists_each_check(system: Up) -> None:
    wait_until(lambda: all_is_well(system), seconds=SECONDS)
    with frozen(system, "nats"):
        wait_until(lambda: system.component("nats") == "disconnected", seconds=SECONDS)
        lines = httpx2.get(f"{system.url}/readyz?verbose").text.splitlines()
    assert any(line.startswith("[+]sql ok") for line in lines)
    assert any(line.startswith("[-]nats disconnected") for line in lines)


def test_without_a_database_runs_are_refused_and_readiness_fails(
    dialect: str, system: Up, request: pytest.FixtureRequest
) -> None:
    wait_until(lambda: all_is_well(system), seconds=SECONDS)
    with system.client() as client, no_database(dialect, system, request):
        wait_until(lambda: system.component("sql") == "disconnected", seconds=SECONDS)
        assert httpx2.get(f"{system.url}/readyz").status_code == 503
        answer = client.post("/v1/chat/completions", json=hello())
        assert answer.status_code == 503
        assert "Retry-After" in answer.headers
        assert httpx2.get(f"{system.url}/health").status_code == 200
    wait_until(lambda: all_is_well(system), seconds=SECONDS)
    with system.client() as client:
        client.post("/v1/chat/completions", json=hello()).raise_for_status()


@contextmanager
def no_database(dialect: str, system: Up, request: pytest.FixtureRequest) -> Iterator[None]:
    if dialect == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        server.sql(["CHECKPOINT"])  # this server does not wait for its disk, and would lose the last moment's commits
        server.stop(signal.SIGQUIT)
        try:
            yield
        finally:
            server.start()
        return
    # Another process that holds SQLite's one write lock: nothing can be written.
    other = sqlite3.connect(Path(system.data) / "kgents.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()
