"""A kgents on each database, with a model provider that misbehaves, shared by tests that bring tenants of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from kgents.store.migrate import migrate
from tests.support.postgres import serve_postgres
from tests.support.tenants import Tenant, tenant_of
from tests.support.up import Up
from tests.support.upstream import Upstream, upstream_in_a_thread


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    """A model provider on loopback that answers as the model's name says."""
    with upstream_in_a_thread() as running:
        yield running


@contextmanager
def up_on(database: str, folder: Path, settings: dict[str, str]) -> Iterator[Up]:
    """A kgents with these settings on a database of its own, `sqlite` or `postgresql`."""
    with ExitStack() as stack:
        if database == "postgresql":
            server = stack.enter_context(serve_postgres(migrate))
            settings = settings | server.environment(server.create_database())
        running = Up(folder, environment=settings).start()
        stack.callback(running.stop)
        yield running


@pytest.fixture(scope="session", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def up(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Up]:
    """A running kgents on each database, with a provider `up`."""
    settings = {
        "KGENTS_INVOICE_DELAY": "1",
        "KGENTS_PROVIDERS__up__BASE_URL": upstream.url,
        "KGENTS_PROVIDERS__up__API_KEY": "sk-of-the-operator",
        "KGENTS_PROVIDERS__away__BASE_URL": "http://127.0.0.1:9/v1",
        "KGENTS_PROVIDERS__away__API_KEY": "sk-of-the-operator",
    }
    with up_on(request.param, tmp_path_factory.mktemp("up"), settings) as running:
        yield running


@pytest.fixture
def new_tenant(up: Up) -> Iterator[Callable[..., Tenant]]:
    """A function that makes a tenant, with the given rates and quotas."""
    with ExitStack() as stack:
        yield lambda **fields: stack.enter_context(tenant_of(up, **fields))


@pytest.fixture
def tenant(new_tenant: Callable[..., Tenant]) -> Tenant:
    """A tenant of the test's own."""
    return new_tenant()
