"""API3:2023. Nobody sets what is not theirs to set, and nobody is shown what is not theirs to read."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from kgents.tenants import keys
from tests.isolation.catalog import BODIES, FIELDS, PLATFORM_PATHS
from tests.security.operations import MUTATING, operations_of
from tests.support.refusals import refused
from tests.support.tenants import Tenant
from tests.support.up import Up

NOT_TO_SET = ("id", "object", "tenant_id", "owner", "created_at", "version", "is_admin", "__proto__", "key_id")
SECRET = "Bearer of-the-mcp-server"
STRIPES_OWN = "StripeEvent"  # has what Stripe puts there; nothing of it is written but which invoice to read again


def test_every_body_refuses_what_it_does_not_know(up: Up, tenant: Tenant, document: dict[str, Any]) -> None:
    """So that nothing can be assigned that is not meant to be: in every operation, for every such field."""
    tried = set()
    with up.admin() as admin:
        for operation in operations_of(document):
            if operation.method not in MUTATING or not operation.schema or operation.schema == STRIPES_OWN:
                continue
            client = admin if operation.path.startswith(PLATFORM_PATHS) else tenant.http
            valid = {
                name: "echo" if name in FIELDS and not value else uuid4().hex if value == "{new}" else value
                for name, value in BODIES[operation.schema][0].items()
            }
            for name in NOT_TO_SET:
                answer = client.request(operation.method, operation.some_path, json={**valid, name: "x"})
                assert name in refused(answer, 422), operation.id
            tried.add(operation.schema)
    assert tried == set(BODIES) - {STRIPES_OWN}


def test_a_tenant_does_not_give_itself_rates_or_quotas(tenant: Tenant) -> None:
    change = {"requests_per_minute": 10**9, "quotas": {"output_tokens": 10**15}, "status": "active"}
    refused(tenant.http.patch(f"/v1/tenants/{tenant.id}", json=change), 403, "missing-scope")
    refused(tenant.http.patch("/v1/tenant", json=change), 405)


def test_the_credentials_of_a_tools_server_are_not_shown_again(tenant: Tenant) -> None:
    tool = {"type": "mcp", "name": "m", "url": "https://mcp.example/", "headers": {"Authorization": SECRET}}
    agent = tenant.agent(tools=[tool])
    shown = [
        agent,
        *(tenant.http.get(path).json() for path in (f"/v1/agents/{agent['id']}", "/v1/agents", "/v1/audit-log")),
        tenant.http.get(f"/v1/agents/{agent['id']}/versions").json(),
        tenant.http.patch(f"/v1/agents/{agent['id']}", json={"description": "x"}).json(),
    ]
    assert not [each for each in shown if SECRET in str(each)]


def test_the_credentials_of_a_tools_server_do_not_go_to_another(tenant: Tenant) -> None:
    tool = {"type": "mcp", "name": "m", "url": "https://mcp.example/", "headers": {"Authorization": SECRET}}
    agent = tenant.agent(tools=[tool])
    stolen = {**tool, "url": "https://attacker.example/", "headers": {"Authorization": "***"}}
    refused(tenant.http.patch(f"/v1/agents/{agent['id']}", json={"tools": [stolen]}), 422)


@pytest.mark.parametrize("path", ["/v1/api-keys", "/v1/audit-log", "/v1/tenant"])
def test_no_secret_of_a_key_is_shown_again(tenant: Tenant, path: str) -> None:
    body, headers = {"name": "k", "role": "viewer"}, {"Idempotency-Key": "once"}
    token = tenant.http.post("/v1/api-keys", json=body, headers=headers).json()["token"]
    again = tenant.http.post("/v1/api-keys", json=body, headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    secret = token[20:63]
    found = tenant.http.get(path).text
    assert secret not in found + again.text
    assert "digest" not in found
    assert keys.parse(token) is not None
