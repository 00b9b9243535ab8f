"""One kgents that every test of this tier attacks, with tenants of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest

from tests.support.tenants import Tenant, tenant_of
from tests.support.up import Up
from tests.support.upstream import Upstream, upstream_in_a_thread

OUTSIDE = "127.0.0.9"  # what stands for the internet: the one address that tools may reach


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    """A model provider that is malicious, gullible or broken, as the model's name says."""
    with upstream_in_a_thread() as running:
        yield running


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Up]:
    """A running kgents behind a gateway that is on loopback, as the attackers are: each says where it comes from."""
    environment = {
        "KGENTS_PROVIDERS__up__BASE_URL": upstream.url,
        "KGENTS_PROVIDERS__up__API_KEY": "sk-of-the-operator",
        "KGENTS_INVOICE_DELAY": "0",
        "KGENTS_EGRESS_ALLOW": json.dumps([OUTSIDE]),
        "KGENTS_TRUSTED_PROXIES": json.dumps(["127.0.0.1"]),
    }
    running = Up(tmp_path_factory.mktemp("security") / "data", environment=environment).start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def document(anyone: httpx2.Client) -> dict[str, Any]:
    """The API's OpenAPI document, as it is served."""
    found: dict[str, Any] = anyone.get("/openapi.json").raise_for_status().json()
    return found


@pytest.fixture(scope="session")
def anyone(up: Up) -> Iterator[httpx2.Client]:
    """A client without a key."""
    with httpx2.Client(base_url=up.url, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture
def new_tenant(up: Up) -> Iterator[Callable[..., Tenant]]:
    """A function that makes a tenant, with the given rates and quotas."""
    with ExitStack() as stack:
        yield lambda **fields: stack.enter_context(tenant_of(up, **fields))


@pytest.fixture(scope="session")
def attacker(up: Up) -> Iterator[Tenant]:
    """A tenant whose key is used for attacks that leave nothing behind."""
    with tenant_of(up) as made:
        yield made


@pytest.fixture
def tenant(new_tenant: Callable[..., Tenant]) -> Tenant:
    """The attacker, when what it has matters."""
    return new_tenant()


@pytest.fixture
def victim(new_tenant: Callable[..., Tenant]) -> Tenant:
    """Another tenant."""
    return new_tenant()
