"""A disk that is full: requests are refused and say so, nothing is half-written, and all goes on once there is room."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from tests.integration.system.test_durability import assert_ledger_is_metered, await_status, background, hello
from tests.support.up import Up
from tests.support.waiting import wait_until

PAGE = 4096


@contextmanager
def full_disk(up: Up) -> Iterator[None]:
    """No file that the API or the worker writes to has room for more, as on a full disk."""
    pids = [up.pid("api"), up.pid("worker")]

    def limit(size: int) -> None:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]))

    limit(PAGE)
    try:
        yield
    finally:
        limit(resource.RLIM_INFINITY)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_full_disk_refuses_what_it_can_not_keep_and_is_got_over(system: Up) -> None:
    with system.client() as client:
        for _ in range(5):
            client.post("/v1/chat/completions", json=hello()).raise_for_status()
        waiting = background(client, "one two three")
        with full_disk(system):
            refused = client.post("/v1/chat/completions", json=hello())
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "store_unavailable"
            assert refused.headers["Retry-After"]
            wait_until(lambda: system.component("sql") == "disconnected", seconds=5, what="the health page says so")
            assert httpx2.get(f"{system.url}/readyz").status_code == 503
        wait_until(lambda: system.health()["status"] == "ok", seconds=30, what="all is well again")
        client.post("/v1/chat/completions", json=hello()).raise_for_status()
        assert await_status(client, waiting, "completed", "failed")["status"] == "completed"
        assert_ledger_is_metered(system, client, runs=7)
        runs = client.get("/v1/runs").raise_for_status().json()["data"]
        assert [run["status"] for run in runs] == ["completed"] * 7
