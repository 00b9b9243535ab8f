"""Tenants that tests make for themselves in a running kgents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx2

from tests.support.reached import METERS, Reached
from tests.support.waiting import wait_until


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant with an agent `echo` and its owner's client."""

    id: str
    key: str = field(repr=False)
    up: Reached = field(repr=False)
    http: httpx2.Client = field(repr=False)

    def agent(self, **fields: object) -> dict[str, Any]:
        """A new agent."""
        body = {"name": uuid4().hex, "model": "kgents:echo", **fields}
        made: dict[str, Any] = self.http.post("/v1/agents", json=body).raise_for_status().json()
        return made

    def session(self, agent: str = "echo") -> str:
        """The id of a new session."""
        return str(self.http.post("/v1/sessions", json={"agent": agent}).raise_for_status().json()["id"])

    def run(self, text: str, agent: str = "echo", **fields: object) -> dict[str, Any]:
        """A run in a session of its own, as it is answered."""
        path = f"/v1/sessions/{self.session(agent)}/runs"
        made: dict[str, Any] = self.http.post(path, json={"input": text, **fields}).raise_for_status().json()
        return made

    def ended(self, run_id: str) -> dict[str, Any]:
        """A run, once it has ended."""

        def finished() -> Any:
            run = self.http.get(f"/v1/runs/{run_id}").raise_for_status().json()
            return run if run["status"] in ("completed", "failed", "cancelled") else None

        run: dict[str, Any] = wait_until(finished, seconds=30, what=f"{run_id} has ended")
        return run

    def all(self, path: str) -> Iterator[dict[str, Any]]:
        """Everything that a list has, page by page."""
        after: dict[str, str] = {}
        while True:
            page = self.http.get(path, params={"limit": "100", **after}).raise_for_status().json()
            yield from page["data"]
            if not page["has_more"]:
                return
            after = {"after": page["last_id"]}

    def balance(self, column: str = "used") -> dict[str, int]:
        """A column of the month's balance: used, reserved, limit or remaining of each meter."""
        meters = self.http.get("/v1/usage/balance").raise_for_status().json()["meters"]
        return {row["meter"]: row[column] for row in meters}

    def issue(self, **fields: object) -> dict[str, Any]:
        """A new API key, with its token."""
        body = {"name": "k", **fields}
        made: dict[str, Any] = self.http.post("/v1/api-keys", json=body).raise_for_status().json()
        return made

    def client(self, **fields: object) -> httpx2.Client:
        """A client with a new API key."""
        return self.up.client(self.issue(**fields)["token"])

    def check_nothing_is_left_over(self) -> None:
        """No run is under way, nothing is reserved, and the balance is what the ended runs used."""
        rows = list(self.all("/v1/runs"))
        assert {run["status"] for run in rows} <= {"completed", "failed", "cancelled"}
        assert self.balance("reserved") == dict.fromkeys(METERS, 0)
        used = self.balance()
        assert {meter: used[meter] for meter in METERS[1:]} == {
            meter: sum(run["usage"][meter] for run in rows) for meter in METERS[1:]
        }


@contextmanager
def tenant_of(up: Reached, **fields: object) -> Iterator[Tenant]:
    """A new tenant, with the given rates and quotas."""
    with up.admin() as admin:
        tenant = admin.post("/v1/tenants", json={"name": uuid4().hex, **fields}).raise_for_status().json()
        keys = f"/v1/tenants/{tenant['id']}/api-keys"
        key = admin.post(keys, json={"name": "owner", "role": "owner"}).raise_for_status().json()["token"]
    with up.client(key) as http:
        made = Tenant(tenant["id"], key, up, http)
        made.agent(name="echo")
        yield made
