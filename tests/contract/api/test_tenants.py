"""`/v1/tenants`, `/v1/tenant` and the audit log of what administrators change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx2
import pytest

from tests.support.refusals import refused
from tests.support.waiting import wait_until


@pytest.fixture
def admin(up):
    with up.admin() as http:
        yield http


def log_of(http, object_id=""):
    """The audit log's entries about an object, oldest first."""
    entries = http.get("/v1/audit-log", params={"limit": 100}).raise_for_status().json()["data"]
    return [entry for entry in reversed(entries) if object_id in ("", entry["object_id"])]


class TestTenants:
    """`/v1/tenants`, for platform administrators."""

    def test_a_tenant_is_what_it_was_created_as(self, admin):
        body = {"name": uuid4().hex, "requests_per_minute": 60, "quotas": {"runs": 5, "output_tokens": 0}}

        answer = admin.post("/v1/tenants", json=body)

        assert answer.status_code == 201
        made = answer.json()
        assert {name: made[name] for name in body} == body
        assert (made["object"], made["status"], made["tokens_per_minute"]) == ("tenant", "active", None)
        assert admin.get(f"/v1/tenants/{made['id']}").json() == made

    def test_a_name_is_taken_once(self, admin, tenant):
        name = admin.get(f"/v1/tenants/{tenant.id}").json()["name"]

        refused(admin.post("/v1/tenants", json={"name": name}), 409)

    def test_a_change_leaves_the_rest(self, admin, new_tenant):
        tenant = new_tenant(requests_per_minute=6000, quotas={"runs": 5, "tool_calls": 7})
        before = admin.get(f"/v1/tenants/{tenant.id}").json()

        body = {"tokens_per_minute": 9, "quotas": {"runs": None, "input_tokens": 3}}
        changed = admin.patch(f"/v1/tenants/{tenant.id}", json=body).json()

        assert changed == {
            **before,
            "tokens_per_minute": 9,
            "quotas": {"tool_calls": 7, "input_tokens": 3},
            "updated_at": changed["updated_at"],
        }
        assert (
            admin.patch(f"/v1/tenants/{tenant.id}", json={"tokens_per_minute": None}).json()["tokens_per_minute"]
            is None
        )

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", ""),
            ("name", "x" * 65),
            ("name", " x"),
            ("requests_per_minute", 0),
            ("requests_per_minute", 2**70),
            ("tokens_per_minute", -1),
            ("quotas", {"coffee": 1}),
            ("quotas", {"runs": -1}),
            ("quotas", {"runs": 2**53}),
            ("quotas", {"runs": 1.5}),
            ("status", "asleep"),
            ("plan", "gold"),
        ],
    )
    def test_a_value_that_can_not_be_is_refused(self, admin, tenant, field, value):
        before = admin.get(f"/v1/tenants/{tenant.id}").json()

        assert field in refused(admin.patch(f"/v1/tenants/{tenant.id}", json={field: value}), 422)
        refused(admin.post("/v1/tenants", json={"name": uuid4().hex, field: value}), 422)
        assert admin.get(f"/v1/tenants/{tenant.id}").json() == before

    def test_tenants_are_paged(self, admin, new_tenant):
        made = {new_tenant().id for _ in range(3)}

        found, after = [], ""
        while True:
            page = admin.get("/v1/tenants", params={"limit": 2, "after": after}).json()
            found += [tenant["id"] for tenant in page["data"]]
            after = page["last_id"]
            if not page["has_more"]:
                break

        assert found == sorted(set(found))
        assert made < set(found)

    @pytest.mark.parametrize("status", ["suspended", "deleted"])
    def test_the_keys_of_a_tenant_that_is_stopped_stop_within_a_second(self, admin, tenant, status):
        assert tenant.http.get("/v1/agents").status_code == 200
        admin.patch(f"/v1/tenants/{tenant.id}", json={"status": status}).raise_for_status()

        answer = wait_until(lambda: (found := tenant.http.get("/v1/agents")).status_code != 200 and found, seconds=1)

        assert answer.status_code in (401, 403)
        assert status in refused(answer, answer.status_code)

    def test_a_suspended_tenant_goes_on_when_it_is_active_again(self, admin, tenant):
        admin.patch(f"/v1/tenants/{tenant.id}", json={"status": "suspended"}).raise_for_status()
        wait_until(lambda: tenant.http.get("/v1/agents").status_code != 200, seconds=1)
        admin.patch(f"/v1/tenants/{tenant.id}", json={"status": "active"}).raise_for_status()

        wait_until(lambda: tenant.http.get("/v1/agents").status_code == 200, seconds=1)

    def test_a_deleted_tenant_stays_deleted(self, admin, tenant):
        admin.patch(f"/v1/tenants/{tenant.id}", json={"status": "deleted"}).raise_for_status()

        refused(admin.patch(f"/v1/tenants/{tenant.id}", json={"status": "active"}), 409)
        refused(admin.post(f"/v1/tenants/{tenant.id}/api-keys", json={"name": "k", "role": "owner"}), 409)

    def test_the_platforms_own_tenant_is_not_stopped(self, admin):
        refused(admin.patch("/v1/tenants/ten_platform", json={"status": "suspended"}), 409)

        assert admin.get("/v1/tenants").status_code == 200

    @pytest.mark.parametrize("tenant_id", ["ten_nobody", "x", "ten_" + "0" * 26])
    def test_a_tenant_that_is_not_there_is_not_found(self, admin, tenant_id):
        refused(admin.get(f"/v1/tenants/{tenant_id}"), 404)
        refused(admin.patch(f"/v1/tenants/{tenant_id}", json={"name": uuid4().hex}), 404)
        refused(admin.post(f"/v1/tenants/{tenant_id}/api-keys", json={"name": "k", "role": "owner"}), 404)

    def test_an_owner_is_no_administrator(self, tenant, new_tenant):
        other = new_tenant()

        for target in (tenant.id, other.id):
            refused(tenant.http.get(f"/v1/tenants/{target}"), 403)
            refused(tenant.http.patch(f"/v1/tenants/{target}", json={"quotas": {"runs": None}}), 403)
            body = {"name": "k", "role": "owner"}
            refused(tenant.http.post(f"/v1/tenants/{target}/api-keys", json=body), 403)
        refused(tenant.http.get("/v1/tenants"), 403)
        refused(tenant.http.post("/v1/tenants", json={"name": "x"}), 403)

    def test_a_tenant_reads_its_own(self, admin, tenant):
        assert tenant.http.get("/v1/tenant").json() == admin.get(f"/v1/tenants/{tenant.id}").json()


class TestAuditLog:
    """`/v1/audit-log`."""

    def test_every_change_is_told_with_who_what_when_and_from_where(self, tenant):
        agent = tenant.agent(name="clerk")["id"]
        tenant.http.patch(f"/v1/agents/{agent}", json={"instructions": "x"}).raise_for_status()
        tenant.http.delete(f"/v1/agents/{agent}", headers={"X-Request-Id": "mine-7"}).raise_for_status()

        entries = log_of(tenant.http, agent)

        assert [entry["action"] for entry in entries] == ["agent.create", "agent.update", "agent.delete"]
        last = entries[-1]
        assert last["actor"] == tenant.key.split("_")[1]
        assert (last["object_type"], last["source_ip"], last["request_id"]) == ("agent", "127.0.0.1", "mine-7")
        assert last["tenant_id"] == tenant.id
        assert abs(datetime.fromisoformat(last["created_at"]) - datetime.now(UTC)) < timedelta(minutes=1)

    def test_changes_of_keys_are_told_without_their_secrets(self, tenant):
        issued = tenant.issue(role="viewer")
        new = tenant.http.post(f"/v1/api-keys/{issued['id']}/rotate", json={}).json()
        tenant.http.delete(f"/v1/api-keys/{issued['id']}").raise_for_status()

        actions = [entry["action"] for entry in log_of(tenant.http, issued["id"])]

        assert actions[0] == "api_key.create"
        assert actions[-1] == "api_key.revoke"
        assert log_of(tenant.http, new["id"]) or "api_key.rotate" in actions
        text = tenant.http.get("/v1/audit-log", params={"limit": 100}).text
        assert not any(key["token"].split("_")[2] in text for key in (issued, new))

    def test_what_administrators_change_is_in_the_tenants_log(self, admin, new_tenant):
        tenant = new_tenant(quotas={"runs": 100})
        admin.patch(f"/v1/tenants/{tenant.id}", json={"quotas": {"runs": 200}}).raise_for_status()

        entries = log_of(tenant.http, tenant.id)

        assert [entry["action"] for entry in entries] == ["tenant.create", "tenant.update"]
        assert "200" in str(entries[-1]["detail"])
        assert entries[-1]["actor"] == str(admin.headers["authorization"]).split("_")[1]

    def test_a_change_that_was_refused_is_not_told(self, tenant):
        before = log_of(tenant.http)

        refused(tenant.http.post("/v1/agents", json={"name": "echo", "model": "kgents:echo"}), 409)
        refused(tenant.http.patch("/v1/agents/echo", json={"model": "nobody:nothing"}), 422)

        assert log_of(tenant.http) == before

    def test_the_deletion_of_a_session_is_told(self, tenant):
        session = tenant.session()
        tenant.http.delete(f"/v1/sessions/{session}").raise_for_status()

        assert [entry["action"] for entry in log_of(tenant.http, session)] == ["session.delete"]

    def test_a_replayed_change_is_told_once(self, tenant):
        body, headers = {"name": "clerk", "model": "kgents:echo"}, {"Idempotency-Key": "k1"}
        made = [tenant.http.post("/v1/agents", json=body, headers=headers).json()["id"] for _ in range(2)]

        assert [entry["action"] for entry in log_of(tenant.http, made[0])] == ["agent.create"]

    def test_entries_are_paged_newest_first(self, tenant):
        for number in range(4):
            tenant.agent(name=f"agent-{number}")
        whole = tenant.http.get("/v1/audit-log", params={"limit": 100}).json()["data"]

        pages, after = [], ""
        while True:
            page = tenant.http.get("/v1/audit-log", params={"limit": 2, "after": after}).json()
            pages += page["data"]
            after = page["last_id"]
            if not page["has_more"]:
                break

        assert pages == whole
        assert [entry["created_at"] for entry in pages] == sorted((e["created_at"] for e in pages), reverse=True)

    def test_nobody_reads_another_tenants(self, new_tenant):
        first, second = new_tenant(), new_tenant()

        assert {entry["tenant_id"] for entry in log_of(first.http)} == {first.id}
        assert {entry["tenant_id"] for entry in log_of(second.http)} == {second.id}

    def test_a_developer_does_not_read_it(self, tenant):
        with tenant.client(role="developer") as http:
            refused(http.get("/v1/audit-log"), 403, "missing-scope")

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    def test_nobody_writes_it(self, tenant, method):
        refused(tenant.http.request(method, "/v1/audit-log"), 405)


def test_a_client_can_not_say_where_it_comes_from(tenant):
    headers = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    made = tenant.http.post("/v1/agents", json={"name": "clerk", "model": "kgents:echo"}, headers=headers).json()["id"]

    assert [entry["source_ip"] for entry in log_of(tenant.http, made)] == ["127.0.0.1"]


def test_the_document_is_open_to_all(up):
    assert httpx2.get(f"{up.url}/openapi.json", trust_env=False).json()["openapi"].startswith("3.1")
