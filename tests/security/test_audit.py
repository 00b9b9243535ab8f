"""Every administrative change is in the audit log, found by the API's document: an operation that is new has to be put
in one list or the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from kgents.tenants.model import PLATFORM
from tests.isolation.catalog import PLATFORM_PATHS
from tests.security.operations import MUTATING, operations_of
from tests.support.tenants import Tenant
from tests.support.up import Up
from tests.support.waiting import wait_until


def plan(tenant: Tenant) -> str:
    """The id of a new plan, which costs something."""
    body = {"name": uuid4().hex, "currency": "eur", "prices": [{"meter": "runs", "amount": 100}]}
    with tenant.up.admin() as admin:
        return str(admin.post("/v1/plans", json=body).raise_for_status().json()["id"])


def subscribed(tenant: Tenant) -> str:
    """The path of the tenant's subscription, on a new plan."""
    path = f"/v1/tenants/{tenant.id}/subscription"
    with tenant.up.admin() as admin:
        admin.put(path, json={"plan": plan(tenant)}).raise_for_status()
    return path


def invoice(tenant: Tenant) -> str:
    """The id of an invoice of the tenant."""
    subscribed(tenant)
    tenant.run("hello")
    subscribed(tenant)
    made = wait_until(lambda: tenant.http.get("/v1/invoices").json()["data"], seconds=30, what="the invoice is made")
    return str(made[0]["id"])


WORK = {
    *("create_chat_completion", "create_response", "delete_response", "cancel_response", "create_run", "cancel_run"),
    *("create_session", "delete_session"),
}
"""Operations that are the tenant's everyday work: they leave runs, messages and usage, not changes of what may be."""
ADMINISTRATIVE: dict[str, tuple[str, Callable[[Tenant], tuple[str, dict[str, Any] | None]]]] = {
    "create_agent": ("agent.create", lambda _: ("/v1/agents", {"name": uuid4().hex, "model": "kgents:echo"})),
    "update_agent": ("agent.update", lambda t: (f"/v1/agents/{t.agent()['id']}", {"instructions": "be brief"})),
    "delete_agent": ("agent.delete", lambda t: (f"/v1/agents/{t.agent()['id']}", None)),
    "create_api_key": ("api_key.create", lambda _: ("/v1/api-keys", {"name": "k", "role": "viewer"})),
    "rotate_api_key": ("api_key.rotate", lambda t: (f"/v1/api-keys/{t.issue(role='viewer')['id']}/rotate", {})),
    "revoke_api_key": ("api_key.revoke", lambda t: (f"/v1/api-keys/{t.issue(role='viewer')['id']}", None)),
    "create_tenant": ("tenant.create", lambda _: ("/v1/tenants", {"name": uuid4().hex})),
    "update_tenant": ("tenant.update", lambda t: (f"/v1/tenants/{t.id}", {"requests_per_minute": 77})),
    "create_tenant_api_key": (
        "api_key.create",
        lambda t: (f"/v1/tenants/{t.id}/api-keys", {"name": "k", "role": "owner"}),
    ),
    "create_plan": ("plan.create", lambda _: ("/v1/plans", {"name": uuid4().hex, "currency": "eur"})),
    "archive_plan": ("plan.archive", lambda t: (f"/v1/plans/{plan(t)}", None)),
    "set_subscription": (
        "subscription.create",
        lambda t: (f"/v1/tenants/{t.id}/subscription", {"plan": plan(t)}),
    ),
    "end_subscription": ("subscription.end", lambda t: (subscribed(t), None)),
    "update_invoice": (
        "invoice.update",
        lambda t: (f"/v1/tenants/{t.id}/invoices/{invoice(t)}", {"status": "void"}),
    ),
}
"""For each operation of administration the action that the log names, and a request."""


def test_every_operation_that_changes_something_is_in_one_list(document: dict[str, Any]) -> None:
    changing = {operation.id for operation in operations_of(document) if operation.method in MUTATING}
    assert changing == WORK | set(ADMINISTRATIVE)
    assert not WORK & set(ADMINISTRATIVE)


def entries(up: Up, tenant_id: str, request_id: str) -> list[dict[str, Any]]:
    """What a tenant's audit log has of a request."""
    with up.admin() as admin:
        keys = f"/v1/tenants/{tenant_id}/api-keys"
        token = admin.post(keys, json={"name": "auditor", "scopes": ["audit:read"]}).raise_for_status().json()["token"]
    with up.client(token) as auditor:
        log = auditor.get("/v1/audit-log", params={"limit": "100"}).raise_for_status().json()["data"]
    return [entry for entry in log if entry["request_id"] == request_id]


@pytest.mark.parametrize("operation_id", ADMINISTRATIVE)
def test_it_is_written_who_did_what_when_and_from_where(
    up: Up, tenant: Tenant, document: dict[str, Any], operation_id: str
) -> None:
    action, request = ADMINISTRATIVE[operation_id]
    (operation,) = (each for each in operations_of(document) if each.id == operation_id)
    path, body = request(tenant)
    request_id = f"audited-{uuid4().hex}"
    headers = {"X-Request-Id": request_id, "X-Forwarded-For": "203.0.113.7, 198.51.100.77"}
    with up.admin() as admin:
        client = admin if path.startswith(PLATFORM_PATHS) else tenant.http
        key_id = client.headers["Authorization"][10:26]
        answer = client.request(operation.method, path, json=body, headers=headers)
    assert answer.is_success, answer.text
    concerned = answer.json()["id"] if operation_id == "create_tenant" else tenant.id
    concerned = PLATFORM if operation.path.startswith("/v1/plans") else concerned
    (entry,) = (each for each in entries(up, concerned, request_id) if each["action"] == action)
    assert (entry["actor"], entry["source_ip"]) == (key_id, "198.51.100.77")
    assert entry["object_id"]
    assert entry["created_at"]


def test_what_was_refused_changed_nothing_and_is_not_in_the_log(up: Up, tenant: Tenant) -> None:
    headers = {"X-Request-Id": f"refused-{uuid4().hex}"}
    with tenant.client(role="viewer") as viewer:
        answer = viewer.post("/v1/agents", json={"name": "a", "model": "kgents:echo"}, headers=headers)
    assert answer.status_code == 403
    assert entries(up, tenant.id, headers["X-Request-Id"]) == []


def test_nobody_changes_the_log(tenant: Tenant, anyone: httpx2.Client) -> None:
    (entry, *_) = tenant.http.get("/v1/audit-log").json()["data"]
    for method in MUTATING:
        assert tenant.http.request(method, "/v1/audit-log").status_code == 405
        assert tenant.http.request(method, f"/v1/audit-log/{entry['id']}").status_code == 404
    assert entry in tenant.http.get("/v1/audit-log").json()["data"]
