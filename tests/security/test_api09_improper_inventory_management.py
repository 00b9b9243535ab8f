"""API9:2023. What is served is what the document says, in one version, on the ports that are meant."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route

from kgents.api.app import ROUTERS
from kgents.console.pages import ROUTES
from tests.support.up import Up

SCRIPTS = ("api", "console", "owner", "tenant", "view")
PAGES = {"/console", *(f"/console/{name}.js" for name in SCRIPTS), "/console/console.css", "/docs"}
ON_THE_METRICS_PORT = {"/metrics", "/health", "/livez", "/health/saas", "/readyz"}


def test_every_route_is_in_the_document(document: dict[str, Any]) -> None:
    served = {
        (method, route.path)
        for module in ROUTERS
        for route in module.router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    documented = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert served == documented


def test_the_pages_are_these() -> None:
    assert {route.path for route in ROUTES if isinstance(route, Route)} == PAGES


def test_every_operation_says_what_it_is_and_what_it_needs(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            title = f"{method} {path}"
            assert operation["summary"], title
            assert operation["operationId"], title
            assert ("security" in operation) == path.startswith("/v1/"), title
            assert not operation.get("deprecated"), f"{title}: say here until when it is kept"


def test_there_is_one_version(anyone: httpx2.Client, document: dict[str, Any]) -> None:
    assert {path.split("/")[1] for path in document["paths"]} == {"v1", "webhooks", "health", "livez", "readyz"}
    for version in ("/v0", "/v2", "/v1beta", "/api/v1", "/beta", "/latest"):
        assert anyone.get(f"{version}/agents").status_code == 404


@pytest.mark.parametrize("path", ["/redoc", "/docs/oauth2-redirect", "/swagger", "/openapi.yaml", "/swagger.json"])
def test_the_frameworks_own_pages_are_off(anyone: httpx2.Client, path: str) -> None:
    assert anyone.get(path).status_code == 404


@pytest.mark.parametrize("name", ["metrics_url", "worker_metrics_url"])
def test_the_metrics_port_serves_metrics_and_health_only(up: Up, name: str) -> None:
    base = str(up.facts[name]).removesuffix("/metrics")
    with httpx2.Client(base_url=base, trust_env=False) as client:
        assert all(client.get(path).status_code == 200 for path in ON_THE_METRICS_PORT)
        for path in ("/", "/v1/agents", "/docs", "/openapi.json", "/debug", "/console"):
            assert client.get(path).status_code == 404


def test_the_meter_needs_its_token(up: Up) -> None:
    with httpx2.Client(base_url=str(up.facts["meter_url"]), trust_env=False) as client:
        for path in ("/api/v1/meters", "/api/v1/meters/runs/query", "/api/v1/events"):
            for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Bearer {up.admin_key}"}):
                assert client.get(path, headers=headers).status_code in (401, 405)


def listening(pid: int) -> set[tuple[str, int]]:
    """The addresses and ports that a process listens on, in Linux' tables."""
    inodes = {
        link.readlink().name.removeprefix("socket:[").rstrip("]")
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if str(link.readlink()).startswith("socket:[")
    }
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, _, port = fields[1].partition(":")
                words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8)]
                found.add((str(ip_address(b"".join(words))), int(port, 16)))
    return found


def test_kgents_up_listens_on_this_machine_only(up: Up) -> None:
    told = {
        int(str(up.facts[name]).removesuffix("/metrics").rpartition(":")[2])
        for name in ("url", "metrics_url", "worker_metrics_url", "meter_url")
    }
    found = {name: listening(pid) for name, pid in up.facts["pids"].items()}
    addresses = {address for each in found.values() for address, _ in each}
    assert addresses == {"127.0.0.1"}
    of_ours = {port for name, each in found.items() if name != "nats" for _, port in each}
    assert of_ours == told
