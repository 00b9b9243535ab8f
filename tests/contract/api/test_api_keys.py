"""`/v1/api-keys`, and what a key that is not good gets."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from kgents.tenants.model import ROLES, SCOPES
from tests.support.events import read_events
from tests.support.raw_http import exchange
from tests.support.refusals import refused
from tests.support.waiting import wait_until

SLOW = "/sleep 0.05 " + " ".join(["word"] * 400)  # about 20 s
PATHS = ("/v1/agents", "/v1/models")  # one of each error shape
# A request for each scope that a tenant's key may have, which does not need anything to exist.
USES = {
    "agents:read": ("GET", "/v1/agents", None),
    "agents:write": ("POST", "/v1/agents", {"name": "x", "model": "kgents:echo"}),
    "sessions:read": ("GET", "/v1/sessions", None),
    "sessions:write": ("POST", "/v1/sessions", {"agent": "echo"}),
    "runs:read": ("GET", "/v1/runs", None),
    "runs:write": ("POST", "/v1/responses", {"model": "echo", "input": "x"}),
    "usage:read": ("GET", "/v1/usage", None),
    "keys:read": ("GET", "/v1/api-keys", None),
    "keys:write": ("POST", "/v1/api-keys", {"name": "x", "scopes": ["keys:write"]}),
    "audit:read": ("GET", "/v1/audit-log", None),
    "platform:admin": ("GET", "/v1/tenants", None),
}


def until_refused(http, seconds=5.0):
    return wait_until(lambda: (found := http.get("/v1/agents")).status_code != 200 and found, seconds=seconds)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_its_scopes(tenant, role):
    issued = tenant.issue(role=role, name="clerk")

    assert (issued["object"], issued["name"], issued["status"]) == ("api_key", "clerk", "active")
    assert issued["scopes"] == sorted(ROLES[role])
    assert issued["tenant_id"] == tenant.id
    assert issued["token"].startswith(f"kg_{issued['id']}_")
    assert tenant.http.get(f"/v1/api-keys/{issued['id']}").json() == {**issued, "token": None}


@pytest.mark.parametrize("scope", sorted(SCOPES - {"platform:admin"}))
def test_a_key_does_what_its_scope_allows_and_nothing_else(tenant, scope):
    with tenant.client(scopes=[scope]) as http:
        for needed, (method, path, body) in USES.items():
            answer = http.request(method, path, **({"json": body} if body else {}))
            if needed == scope:
                assert answer.is_success, answer.text
            else:
                assert needed in refused(answer, 403, "missing-scope")


def test_nobody_grants_more_than_they_have(tenant):
    refused(tenant.http.post("/v1/api-keys", json={"name": "k", "scopes": ["platform:admin"]}), 403)
    with tenant.client(scopes=["keys:write", "runs:read"]) as http:
        refused(http.post("/v1/api-keys", json={"name": "k", "role": "owner"}), 403)
        refused(http.post("/v1/api-keys", json={"name": "k", "scopes": ["runs:read", "runs:write"]}), 403)
        assert http.post("/v1/api-keys", json={"name": "k", "scopes": ["runs:read"]}).status_code == 201


def test_nobody_rotates_a_key_to_more_than_they_have(tenant):
    owner = tenant.issue(role="owner")
    with tenant.client(scopes=["keys:write"]) as http:
        refused(http.post(f"/v1/api-keys/{owner['id']}/rotate", json={}), 403)


def test_keys_are_paged(tenant):
    made = [tenant.issue(role="viewer")["id"] for _ in range(3)]

    pages, after = [], ""
    while True:
        page = tenant.http.get("/v1/api-keys", params={"limit": 2, "after": after}).json()
        pages += [key["id"] for key in page["data"]]
        after = page["last_id"]
        assert "token" not in page or page["token"] is None
        assert all(key["token"] is None for key in page["data"])
        if not page["has_more"]:
            break

    assert pages == sorted(pages)
    assert set(made) < set(pages)
    assert len(pages) == 4


def test_a_rotated_key_works_on_for_the_overlap(tenant):
    old = tenant.issue(role="viewer", name="clerk")

    new = tenant.http.post(f"/v1/api-keys/{old['id']}/rotate", json={"overlap_seconds": 1}).json()
    rotated = time.monotonic()

    assert (new["rotated_from"], new["name"], new["scopes"]) == (old["id"], "clerk", old["scopes"])
    with tenant.up.client(old["token"]) as before, tenant.up.client(new["token"]) as after:
        assert before.get("/v1/agents").status_code == 200
        assert after.get("/v1/agents").status_code == 200
        answer = until_refused(before)
        assert time.monotonic() - rotated > 0.9
        assert "expired" in refused(answer, 401)
        assert after.get("/v1/agents").status_code == 200


def test_a_key_that_is_rotated_without_overlap_stops_within_a_second(tenant):
    old = tenant.issue(role="viewer")
    with tenant.up.client(old["token"]) as http:
        assert http.get("/v1/agents").status_code == 200
        tenant.http.post(f"/v1/api-keys/{old['id']}/rotate", json={"overlap_seconds": 0}).raise_for_status()

        refused(until_refused(http, 1.0), 401)


def test_a_revoked_key_stops_within_a_second(tenant):
    issued = tenant.issue(role="viewer")
    with tenant.up.client(issued["token"]) as http:
        assert http.get("/v1/agents").status_code == 200
        revoked = tenant.http.delete(f"/v1/api-keys/{issued['id']}").json()

        assert "revoked" in refused(until_refused(http, 1.0), 401)

    assert revoked["status"] == "revoked"
    assert tenant.http.delete(f"/v1/api-keys/{issued['id']}").json()["revoked_at"] == revoked["revoked_at"]
    answer = tenant.http.post(f"/v1/api-keys/{issued['id']}/rotate", json={})
    refused(answer, 409)


def test_nobody_makes_or_rotates_a_key_that_outlives_theirs(tenant):
    lasting = tenant.issue(role="viewer")
    ends = datetime.now(UTC) + timedelta(minutes=1)
    later = (ends + timedelta(seconds=1)).isoformat()
    with tenant.client(role="owner", expires_at=ends.isoformat()) as http:
        made = http.post("/v1/api-keys", json={"name": "k", "role": "viewer"}).json()
        body = {"name": "k", "role": "viewer", "expires_at": later}
        refused(http.post("/v1/api-keys", json=body), 403, "expiry-not-grantable")
        refused(http.post(f"/v1/api-keys/{lasting['id']}/rotate", json={}), 403, "expiry-not-grantable")

    assert datetime.fromisoformat(made["expires_at"]) == ends


def test_nobody_revokes_a_key_that_may_do_more(tenant):
    owner = tenant.issue(role="owner")
    with tenant.client(scopes=["keys:write"]) as http:
        refused(http.delete(f"/v1/api-keys/{owner['id']}"), 403, "key-not-revocable")


def native_stream(http, tenant):
    body = {"input": SLOW, "mode": "stream"}
    return http.stream("POST", f"/v1/sessions/{tenant.session()}/runs", json=body)


def followed_run(http, tenant):
    run = tenant.run(SLOW, mode="background")
    return http.stream("GET", f"/v1/runs/{run['id']}/events")


def response_stream(http, _tenant):
    return http.stream("POST", "/v1/responses", json={"model": "echo", "input": SLOW, "stream": True})


def followed_response(http, tenant):
    body = {"model": "echo", "input": SLOW, "background": True}
    response = tenant.http.post("/v1/responses", json=body).raise_for_status().json()
    return http.stream("GET", f"/v1/responses/{response['id']}", params={"stream": "true", "starting_after": "2"})


def chat_stream(http, _tenant):
    body = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": SLOW}]}
    return http.stream("POST", "/v1/chat/completions", json=body)


STREAMS = [native_stream, followed_run, response_stream, followed_response, chat_stream]


def code_at_the_end(events):
    """What refuses the rest of a stream, in each protocol's words."""
    last = list(events)[-1].data
    code = last.get("code") or last.get("error", {}).get("code") or last["type"].removeprefix("urn:kgents:problem:")
    return code.replace("_", "-")


@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_ends_soon_after_its_key_was_revoked(tenant, stream):
    issued = tenant.issue(role="developer")
    with tenant.up.client(issued["token"]) as http, stream(http, tenant) as answer:
        events = read_events(answer)
        next(events)
        tenant.http.delete(f"/v1/api-keys/{issued['id']}").raise_for_status()
        revoked = time.monotonic()

        assert code_at_the_end(events) == "api-key-revoked"
        assert time.monotonic() - revoked < 5  # of the run's 20


def test_a_stream_ends_when_its_key_expires(tenant):
    expires = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    with tenant.client(role="developer", expires_at=expires) as http, chat_stream(http, tenant) as answer:
        assert code_at_the_end(read_events(answer)) == "api-key-expired"


def test_a_stream_ends_soon_after_its_tenant_was_suspended(tenant):
    with chat_stream(tenant.http, tenant) as answer, tenant.up.admin() as admin:
        events = read_events(answer)
        next(events)
        admin.patch(f"/v1/tenants/{tenant.id}", json={"status": "suspended"}).raise_for_status()

        assert code_at_the_end(events) == "tenant-suspended"


def test_a_key_can_end_itself(tenant):
    issued = tenant.issue(role="owner")
    with tenant.up.client(issued["token"]) as http:
        assert http.delete(f"/v1/api-keys/{issued['id']}").status_code == 200
        refused(until_refused(http, 1.0), 401)


def test_an_expired_key_is_refused_at_its_time(tenant):
    expires = datetime.now(UTC) + timedelta(seconds=1.5)
    issued = tenant.issue(role="viewer", expires_at=expires.isoformat())
    with tenant.up.client(issued["token"]) as http:
        assert http.get("/v1/agents").status_code == 200

        assert "expired" in refused(until_refused(http), 401)

    assert datetime.now(UTC) >= expires
    assert tenant.http.get(f"/v1/api-keys/{issued['id']}").json()["status"] == "expired"


def test_a_key_is_not_created_expired(tenant):
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()

    answer = tenant.http.post("/v1/api-keys", json={"name": "k", "role": "viewer", "expires_at": past})

    assert "expires_at" in refused(answer, 422)


def test_a_key_tells_when_it_was_last_used(tenant):
    issued = tenant.issue(role="viewer")
    assert issued["last_used_at"] is None
    with tenant.up.client(issued["token"]) as http:
        http.get("/v1/agents").raise_for_status()

    wait_until(lambda: tenant.http.get(f"/v1/api-keys/{issued['id']}").json()["last_used_at"], seconds=30)


def test_another_tenants_key_is_not_there(new_tenant):
    owner, stranger = new_tenant(), new_tenant()
    issued = owner.issue(role="viewer")
    path = f"/v1/api-keys/{issued['id']}"

    refused(stranger.http.get(path), 404)
    refused(stranger.http.delete(path), 404)
    refused(stranger.http.post(f"{path}/rotate", json={}), 404)

    assert issued["id"] not in [key["id"] for key in stranger.http.get("/v1/api-keys").json()["data"]]
    with owner.up.client(issued["token"]) as http:
        assert http.get("/v1/agents").status_code == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "Bearer",
        "Basic a2c6eA==",
        "Bearer kg_",
        "Bearer kg__",
        "Bearer kg_x_y",
        "Bearer sk-1234",
        "Bearer \u00fc\u00fc".encode(),
        "Bearer " + "k" * 60_000,
        "Bearer kg_' OR 1=1--_x",
    ],
)
def test_a_garbled_key_is_refused(up, path, value):
    headers = {} if value is None else {"Authorization": value}

    answer = httpx2.get(up.url + path, headers=headers, trust_env=False)

    refused(answer, 401)
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", PATHS)
def test_a_key_with_another_secret_is_refused(tenant, path):
    wrong = tenant.key[:-4] + ("BBBB" if tenant.key.endswith("AAAA") else "AAAA")

    with tenant.up.client(wrong) as http:
        refused(http.get(path), 401)


def test_a_key_in_the_query_is_not_looked_at(tenant):
    refused(httpx2.get(f"{tenant.up.url}/v1/agents?api_key={tenant.key}", trust_env=False), 401)


def test_the_body_of_a_request_without_a_key_is_not_read(up):
    request = b"POST /v1/agents HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"

    refused(exchange(up.url, request), 401)
