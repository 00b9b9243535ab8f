"""API5:2023. Each operation of the API's document needs its scope, whatever else the request says.

tests/contract/api/test_api_keys.py shows the reverse: that each scope opens what it is for.
"""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.isolation.catalog import BODIES
from tests.security.operations import MUTATING, Operation, operations_of
from tests.support.refusals import refused
from tests.support.tenants import Tenant
from tests.support.up import Up

PLATFORMS = ("/v1/tenants", "/v1/plans", "/v1/revenue")


def call(client: httpx2.Client, operation: Operation, **headers: str) -> httpx2.Response:
    body = BODIES[operation.schema][0] if operation.schema else None
    return client.request(operation.method, operation.some_path, json=body, headers=headers)


def test_every_operation_needs_a_scope(tenant: Tenant, document: dict[str, Any]) -> None:
    """With a key that has only one, for something else."""
    operations = operations_of(document)
    assert len(operations) >= 39
    with tenant.client(scopes=["audit:read"]) as auditor, tenant.client(scopes=["usage:read"]) as accountant:
        for operation in operations:
            client = accountant if operation.path == "/v1/audit-log" else auditor
            refused(call(client, operation), 403, "missing-scope")


def test_who_may_only_read_changes_nothing(tenant: Tenant, document: dict[str, Any]) -> None:
    with tenant.client(role="viewer") as viewer:
        for operation in operations_of(document):
            if operation.method in MUTATING:
                refused(call(viewer, operation), 403, "missing-scope")


def test_no_tenant_administers_the_platform(tenant: Tenant, victim: Tenant, document: dict[str, Any]) -> None:
    operations = [each for each in operations_of(document) if each.path.startswith(PLATFORMS)]
    assert len(operations) == 15
    for operation in operations:
        for tenant_id in (tenant.id, victim.id, "ten_platform"):
            body = BODIES[operation.schema][0] if operation.schema else None
            path = operation.path.replace("{tenant_id}", tenant_id)
            refused(tenant.http.request(operation.method, path, json=body), 403, "missing-scope")


@pytest.mark.parametrize("scope", ["platform:admin", "PLATFORM:ADMIN", "platform:*", "*", "admin"])
def test_nobody_makes_themselves_an_administrator(attacker: Tenant, scope: str) -> None:
    answer = attacker.http.post("/v1/api-keys", json={"name": "k", "scopes": [scope]})
    refused(answer, 403 if scope == "platform:admin" else 422)


def test_the_platforms_own_key_is_no_key_to_tenants_objects(up: Up, tenant: Tenant) -> None:
    run = tenant.run("mine")
    with up.admin() as admin:
        for path in (f"/v1/runs/{run['id']}", f"/v1/sessions/{run['session_id']}/messages"):
            assert admin.get(path).status_code in (403, 404)


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method"])
def test_the_method_is_the_requests_and_nothing_elses(tenant: Tenant, name: str) -> None:
    agent = tenant.agent()["id"]
    with tenant.client(role="viewer") as viewer:
        for method in ("GET", "POST"):
            path = f"/v1/agents/{agent}"
            viewer.request(method, path, headers={name: "DELETE"}, params={name: "DELETE"})
    assert tenant.http.get(f"/v1/agents/{agent}").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/admin",
            "/v1/admin",
            "/internal",
            "/debug",
            "/debug/pprof",
            "/metrics",
            "/v1/metrics",
            "/.env",
            "/.git/config",
        ),
        *("/actuator", "/server-status", "/console/../../etc/passwd", "/console/index.html", "/console/reference.html"),
        *("/static/", "/v1/keys", "/graphql", "/redoc", "/proc/self/environ"),
    ],
)
def test_there_is_nothing_that_no_document_tells_of(attacker: Tenant, path: str) -> None:
    refused(attacker.http.get(path), 404)
