"""Tenants that own one object of every kind, each with texts and ids that stand nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx2

from tests.support.reached import Reached
from tests.support.waiting import wait_until

ROLES = ("owner", "developer", "viewer")


def canary(what: str) -> str:
    """A text that stands nowhere else."""
    return f"{what}-{uuid4().hex[:16]}"


@dataclass
class Tenant:
    """A tenant with a client for each role. `refs` are the ways to name its objects by kind, `texts` what it wrote,
    `running` the ids of the runs that go on for as long as the tenant is there. Its first key is nobody's client, so
    that it may be rotated. What is in `platforms`, as its plans are, the platform's administrators know, too.
    """

    id: str
    name: str
    http: dict[str, httpx2.Client] = field(repr=False)
    refs: dict[str, list[str]] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    platforms: set[str] = field(default_factory=set)
    running: list[str] = field(default_factory=list)

    def ref(self, kind: str) -> str:
        """The first of its objects of a kind."""
        return self.refs[kind][0]

    def canaries(self) -> set[str]:
        """Everything that no other tenant may ever be told."""
        return {*self.texts, *(ref for refs in self.refs.values() for ref in refs)}

    def get(self, path: str, **query: Any) -> Any:
        """What the owner is answered."""
        return self.http["owner"].get(path, params=query).raise_for_status().json()

    def view(self) -> dict[str, Any]:
        """Everything that the owner sees, but for the times at which keys were last used, and for the events of runs
        that are not finished, which have no end.
        """
        pages = ("agents", "sessions", "runs", "api-keys", "usage/events", "audit-log", "invoices")
        seen: dict[str, Any] = {page: self.get(f"/v1/{page}", limit=100) for page in pages}
        for page in seen.values():
            assert not page["has_more"], "the view must be whole"
        for key in seen["api-keys"]["data"]:
            key.pop("last_used_at")
        seen |= {path: self.get(path) for path in ("/v1/usage", "/v1/usage/balance", "/v1/tenant", "/v1/subscription")}
        for agent in seen["agents"]["data"]:
            seen[f"versions of {agent['id']}"] = self.get(f"/v1/agents/{agent['id']}/versions", limit=100)
        for session in seen["sessions"]["data"]:
            seen[f"messages of {session['id']}"] = self.get(f"/v1/sessions/{session['id']}/messages", limit=100)
        for run in seen["runs"]["data"]:
            if run["id"] in self.running:
                continue
            seen[f"events of {run['id']}"] = self.http["owner"].get(f"/v1/runs/{run['id']}/events").text
        for response in self.refs["response"]:
            seen[f"response {response}"] = self.http["owner"].get(f"/v1/responses/{response}").text
        seen["/v1/usage"].pop("to", None)  # now
        return seen


@contextmanager
def tenant_with_everything(up: Reached) -> Iterator[Tenant]:
    """A new tenant that owns something of every kind."""
    with ExitStack() as stack, up.admin() as admin:
        name = canary("tenant")
        made = admin.post("/v1/tenants", json={"name": name}).raise_for_status().json()
        keys = f"/v1/tenants/{made['id']}/api-keys"
        clients = {}
        key_ids = []
        names = {role: canary(f"key-{role}") for role in ("spare", *ROLES)}
        for role, name_of_key in names.items():
            body = {"name": name_of_key, "role": role if role in ROLES else "viewer"}
            key = admin.post(keys, json=body).raise_for_status().json()
            clients[role] = stack.enter_context(up.client(key["token"]))
            key_ids.append(key["id"])
        tenant = Tenant(made["id"], name, clients)
        tenant.refs = {"tenant": [made["id"]], "key": key_ids}
        tenant.texts = [name, *names.values()]
        stack.callback(_end_running, tenant)
        _fill(tenant)
        _bill(tenant, admin)
        yield tenant


def _end_running(tenant: Tenant) -> None:
    owner = tenant.http["owner"]
    if owner.get("/v1/runs").status_code == 401:
        return  # a planted fault has let another tenant end its keys

    def ended(run_id: str) -> bool:
        return tenant.get(f"/v1/runs/{run_id}")["status"] not in ("queued", "running")

    for run_id in tenant.running:
        owner.post(f"/v1/runs/{run_id}/cancel")
    for run_id in tenant.running:
        wait_until(lambda run=run_id: ended(run), seconds=30, what=f"{run_id} has ended")


def _fill(tenant: Tenant) -> None:
    owner = tenant.http["owner"]
    texts = {
        what: canary(what)
        for what in (
            *("instructions", "description", "property", "metadata", "message", "chat", "response", "background"),
            *("running run", "running response"),
        )
    }
    tenant.texts += texts.values()

    def post(path: str, body: dict[str, Any], **headers: str) -> Any:
        return owner.post(path, json=body, headers=headers).raise_for_status().json()

    agent = post(
        "/v1/agents",
        {
            "name": canary("agent"),
            "model": "kgents:echo",
            "instructions": texts["instructions"],
            "description": texts["description"],
        },
    )
    owner.patch(f"/v1/agents/{agent['id']}", json={"limits": {"timeout_seconds": 3600}}).raise_for_status()
    session = post("/v1/sessions", {"agent": agent["id"], "metadata": {texts["property"]: texts["metadata"]}})
    idempotency = [canary("idempotency") for _ in range(3)]
    run = post(f"/v1/sessions/{session['id']}/runs", {"input": texts["message"]}, **{"Idempotency-Key": idempotency[0]})
    chat = owner.post(
        "/v1/chat/completions",
        json={"model": agent["name"], "messages": [{"role": "user", "content": texts["chat"]}]},
        headers={"Idempotency-Key": idempotency[1]},
    ).raise_for_status()
    response = post(
        "/v1/responses",
        {"model": agent["name"], "input": texts["response"]},
        **{"Idempotency-Key": idempotency[2]},
    )
    background = post(
        f"/v1/sessions/{session['id']}/runs", {"input": f"/sleep 0.2 {texts['background']}", "mode": "background"}
    )

    busy = post("/v1/sessions", {"agent": agent["id"]})
    running = post(f"/v1/sessions/{busy['id']}/runs", {"input": _going_on(texts["running run"]), "mode": "background"})
    response_running = post(
        "/v1/responses", {"model": agent["name"], "input": _going_on(texts["running response"]), "background": True}
    )
    tenant.running = [running["id"], response_running["id"].replace("resp_", "run_")]

    def settled() -> bool:
        status = {run["id"]: run["status"] for run in tenant.get("/v1/runs", limit=100)["data"]}
        return status[background["id"]] == "completed" and all(status[run] == "running" for run in tenant.running)

    wait_until(settled, seconds=30, what="the background run has ended, and the ones that go on have begun")
    events = tenant.get("/v1/usage/events", limit=100)["data"]
    assert events, "the tenant has usage"
    tenant.refs |= {
        "agent": [agent["id"], agent["name"]],
        "session": [session["id"], busy["id"]],
        "run": [
            *(run["id"], background["id"], chat.headers["x-run-id"], response["id"].replace("resp_", "run_")),
            *tenant.running,
        ],
        "response": [response["id"], response_running["id"]],
        "completion": [chat.json()["id"]],
        "idempotency key": idempotency,
        "usage event": [event["id"] for event in events[:2]],
        "audit entry": [entry["id"] for entry in tenant.get("/v1/audit-log", limit=100)["data"][:2]],
    }


def _bill(tenant: Tenant, admin: httpx2.Client) -> None:
    """Put the tenant on one plan and then on another, so that there is an invoice for the first."""
    for _ in range(2):
        plan = {"name": canary("plan"), "currency": "eur"}
        made = admin.post("/v1/plans", json=plan).raise_for_status().json()
        path = f"/v1/tenants/{tenant.id}/subscription"
        subscription = admin.put(path, json={"plan": made["id"]}).raise_for_status().json()
        tenant.texts += [made["id"], made["name"], subscription["id"]]
        tenant.platforms |= {made["id"], made["name"]}
    invoices = wait_until(lambda: tenant.get("/v1/invoices")["data"], seconds=30, what="the invoice is made")
    tenant.refs["invoice"] = [invoices[0]["id"]]


def _going_on(text: str) -> str:
    """What makes a run say `text` and go on for half an hour."""
    return f"/sleep 2 {text}{' on' * 900}"
