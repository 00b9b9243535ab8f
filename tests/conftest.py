"""Fixtures of every tier."""

from __future__ import annotations

import os
import signal
from typing import Any

import hypothesis
import pytest

from kgents.clock import ManualClock
from tests.support import loopback
from tests.support.ports import free_port as _free_port

hypothesis.settings.register_profile("kgents", deadline=None, print_blob=True)
hypothesis.settings.load_profile("kgents")

# What a developer has set for their own kgents must not decide how the tests go; these are for the tests themselves.
_FOR_TESTS = (
    "KGENTS_CACHE",
    "KGENTS_CLUSTER_RUN",
    "KGENTS_TEST_KUBECONFIG",
    "KGENTS_TEST_URL",
    "KGENTS_FULL",
    "KGENTS_FUZZ_SECONDS",
    "KGENTS_PREPARING",
    "KGENTS_RESTORE",
    "KGENTS_RESULTS",
    "KGENTS_SCALING",
    "KGENTS_SEED",
)
for _name in [name for name in os.environ if name.startswith(("KGENTS_", "OTEL_")) and name not in _FOR_TESTS]:
    del os.environ[_name]


def pytest_configure() -> None:
    loopback.allow_only()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell has what runs in the background ignore Ctrl-C, and so would the commands that are to hear it.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not os.environ.get("KGENTS_FULL"):
        full = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=full)
        items[:] = [item for item in items if item not in full]
    for item in items:
        for server in ("postgres", "redis"):
            if server in getattr(item, "fixturenames", ()):
                item.add_marker(server)
    # A cluster takes CPU time for as long as it runs, which is to the end: nothing that awaits anything runs beside it.
    items.sort(key=lambda item: item.nodeid.startswith("tests/cluster/"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> ManualClock:
    """A clock that moves only when the test says so."""
    return ManualClock()


@pytest.fixture
def free_port() -> Any:
    """A function that gives a free port on loopback each time it is called."""
    return _free_port
