"""Processes whose dependencies are blocked or slow on the network: the page says so within 5 s, and recovers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx2
import pytest

from tests.contract.meter.process import TOKEN, MeterProcess
from tests.integration.conftest import Database
from tests.support.nats import NatsServer
from tests.support.ports import free_port
from tests.support.proxy import FaultyProxy
from tests.support.waiting import wait_until

SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Behind:
    """An API process, and the proxies between it and what it depends on."""

    url: str
    proxies: dict[str, FaultyProxy]

    def status(self, component: str) -> str:
        page = httpx2.get(f"{self.url}/health/saas", timeout=10, trust_env=False)
        return str(page.json()["components"][component]["status"])


def through(url: str, proxy: FaultyProxy) -> str:
    """The URL by way of the proxy."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{proxy.port}" if user else f"127.0.0.1:{proxy.port}"))


@pytest.fixture
def behind(database: Database, nats: NatsServer, tmp_path: Path) -> Iterator[Behind]:
    """`kgents serve api` that reaches its bus, its meter and (where it has a port) its database through proxies."""
    with ExitStack() as stack:
        meter = MeterProcess(tmp_path, free_port()).start()
        stack.callback(meter.stop)
        urls = {"nats": nats.url, "meter": meter.url}
        if database.dialect == "postgresql":
            urls["sql"] = database.url
        proxies = {}
        for name, url in urls.items():
            port = urlsplit(url).port
            assert port is not None
            proxies[name] = FaultyProxy(port)
            stack.callback(proxies[name].close)
            urls[name] = through(url, proxies[name])
        port = free_port()
        environment = {
            "KGENTS_DATABASE_URL": urls.get("sql", database.url),
            "KGENTS_PEPPER": "5ca1ab1e" * 8,
            "KGENTS_NATS_URL": urls["nats"],
            "KGENTS_NATS_USER": nats.user,
            "KGENTS_NATS_PASSWORD": nats.password,
            "KGENTS_METER_URL": urls["meter"],
            "KGENTS_METER_TOKEN": TOKEN,
            "KGENTS_PORT": str(port),
            "KGENTS_METRICS_PORT": str(free_port()),
        }
        with (tmp_path / "api.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "kgents.cli.main", "serve", "api"],
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
            )
        stack.callback(process.wait, 60)
        stack.callback(process.terminate)
        running = Behind(f"http://127.0.0.1:{port}", proxies)
        wait_until(lambda: _is_well(running), seconds=60, what="the API is well")
        yield running


def _is_well(running: Behind) -> bool:
    try:
        page = httpx2.get(f"{running.url}/health/saas", timeout=10, trust_env=False)
    except httpx2.HTTPError:
        return False
    return bool(page.status_code == 200 and page.json()["status"] == "ok")


@pytest.mark.parametrize("fault", ["refuse", "hang", "slow"])
@pytest.mark.parametrize(
    ("database", "component"),
    [
        ("sqlite", "nats"),
        ("sqlite", "meter"),
        pytest.param("postgresql", "sql", marks=pytest.mark.postgres),
    ],
    indirect=["database"],
)
def test_a_blocked_or_slow_dependency_is_told_and_recovers(behind: Behind, component: str, fault: str) -> None:
    proxy = behind.proxies[component]
    if fault == "slow":
        proxy.slow(8.0)
    else:
        getattr(proxy, fault)()
    wait_until(lambda: behind.status(component) == "disconnected", seconds=SECONDS, what="the page says so")
    page = httpx2.get(f"{behind.url}/health/saas", timeout=10, trust_env=False)
    assert page.status_code == (503 if component == "sql" else 200)
    assert httpx2.get(f"{behind.url}/health", timeout=10, trust_env=False).status_code == 200
    proxy.heal()
    wait_until(lambda: _is_well(behind), seconds=SECONDS, what="all is well again")
