"""`Idempotency-Key`: a request is done once, however often and however concurrently it is sent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx2
import pytest

from tests.support.refusals import refused

CHAT = "/v1/chat/completions"
RACERS = 50


def hello(text="hello"):
    return {"model": "echo", "messages": [{"role": "user", "content": text}]}


def post(tenant, path, body, key):
    return tenant.http.post(path, json=body, headers={"Idempotency-Key": key})


def race(tenant, path, body):
    """What `RACERS` clients are answered that send the same request with the same key at once."""
    key = uuid4().hex
    limits = httpx2.Limits(max_connections=RACERS)
    headers = {"Authorization": f"Bearer {tenant.key}", "Idempotency-Key": key}
    with (
        httpx2.Client(base_url=tenant.up.url, headers=headers, limits=limits, timeout=60, trust_env=False) as http,
        ThreadPoolExecutor(RACERS) as pool,
    ):
        return list(pool.map(lambda _: http.post(path, json=body), range(RACERS)))


def check_race(answers, status):
    """One did it, and the others were answered the same or told to wait."""
    done = [answer for answer in answers if answer.status_code == status]
    first = [answer for answer in done if "idempotent-replayed" not in answer.headers]
    assert len(first) == 1
    assert {answer.text for answer in done} == {first[0].text}
    for answer in answers:
        if answer not in done:
            refused(answer, 409, "idempotency-key-in-use")
            assert int(answer.headers["retry-after"]) >= 1
    return first[0]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/agents", {"name": "clerk", "model": "kgents:echo"}),
        ("/v1/sessions", {"agent": "echo", "metadata": {"a": "b"}}),
        (CHAT, hello()),
        ("/v1/responses", {"model": "echo", "input": "hello"}),
        ("/v1/responses", {"model": "echo", "input": "hello", "background": True}),
    ],
)
class TestEachRoute:
    """The promises of the key, on each kind of route."""

    def test_a_retry_is_answered_the_same(self, tenant, path, body):
        first = post(tenant, path, body, "k1")
        if body.get("background"):
            tenant.ended(first.headers["x-run-id"])

        again = post(tenant, path, body, "k1")

        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true"
        assert again.status_code == first.status_code
        assert again.json()["id"] == first.json()["id"]
        if not body.get("background"):
            assert again.json() == first.json()

    def test_another_body_is_refused(self, tenant, path, body):
        first = post(tenant, path, body, "k1").raise_for_status()
        field = "metadata" if "messages" in body or "input" in body else "description"
        other = {**body, field: "x" if field == "description" else {"x": "y"}}
        if "agent" in body:
            other = {**body, "metadata": {}}

        refused(post(tenant, path, other, "k1"), 422, "idempotency-key-reused")

        assert post(tenant, path, body, "k1").json()["id"] == first.json()["id"]

    def test_keys_of_other_tenants_are_others(self, new_tenant, path, body):
        ids = {post(new_tenant(), path, body, "k1").raise_for_status().json()["id"] for _ in range(2)}

        assert len(ids) == 2

    def test_another_key_is_another_request(self, tenant, path, body):
        post(tenant, path, body, "k1").raise_for_status()

        answer = post(tenant, path, body, "k2")

        if path == "/v1/agents":
            refused(answer, 409, "agent-name-taken")
        else:
            assert "idempotent-replayed" not in answer.headers

    def test_of_many_at_once_one_does_it(self, tenant, path, body):
        answers = race(tenant, path, body)

        if path == "/v1/responses" and body.get("background"):
            assert len({answer.json()["id"] for answer in answers if answer.status_code == 200}) == 1
            assert sum("idempotent-replayed" not in answer.headers for answer in answers if answer.is_success) == 1
            tenant.ended(next(answer for answer in answers if answer.is_success).headers["x-run-id"])
        else:
            check_race(answers, 201 if path in ("/v1/agents", "/v1/sessions") else 200)
        agents = tenant.http.get("/v1/agents").json()["data"]
        assert len(agents) == (2 if path == "/v1/agents" else 1)
        sessions = tenant.http.get("/v1/sessions").json()["data"]
        assert len(sessions) == int(path == "/v1/sessions")
        runs = tenant.http.get("/v1/runs").json()["data"]
        assert len(runs) == tenant.balance()["runs"] == int(path in (CHAT, "/v1/responses"))
        tenant.check_nothing_is_left_over()


@pytest.mark.parametrize("mode", ["wait", "background"])
def test_a_run_in_a_session_is_done_once(tenant, mode):
    path = f"/v1/sessions/{tenant.session()}/runs"

    answers = race(tenant, path, {"input": "hello", "mode": mode})

    done = [answer for answer in answers if answer.is_success]
    assert len({answer.json()["id"] for answer in done}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in done) == 1
    for answer in answers:
        if answer not in done:
            refused(answer, 409, "idempotency-key-in-use")
    tenant.ended(done[0].json()["id"])
    assert tenant.balance()["runs"] == 1
    tenant.check_nothing_is_left_over()


def test_a_stream_is_replayed_with_its_whole_text(tenant):
    body = {**hello("one two three"), "stream": True, "stream_options": {"include_usage": True}}

    first = post(tenant, CHAT, body, "k1")
    again = post(tenant, CHAT, body, "k1")

    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-run-id"] == first.headers["x-run-id"]
    assert "one two three" in again.text
    assert again.text.endswith("data: [DONE]\n\n")
    assert tenant.balance()["runs"] == 1


def test_a_run_that_failed_is_replayed_as_failed(tenant):
    first = post(tenant, CHAT, hello("/fail"), "k1")
    again = post(tenant, CHAT, hello("/fail"), "k1")

    refused(first, 502, "model-failed")
    refused(again, 502, "model-failed")
    assert len(tenant.http.get("/v1/runs").json()["data"]) == 1


def test_a_refused_request_leaves_its_key_free(tenant):
    body = {"model": "later", "messages": [{"role": "user", "content": "x"}]}
    refused(post(tenant, CHAT, body, "k1"), 404)
    refused(post(tenant, "/v1/sessions", {"agent": "later"}, "k2"), 404)
    tenant.agent(name="later")

    assert post(tenant, CHAT, body, "k1").status_code == 200
    assert post(tenant, "/v1/sessions", {"agent": "later"}, "k2").status_code == 201


def test_a_key_over_quota_is_free_again_when_there_is_room(up, new_tenant):
    tenant = new_tenant(quotas={"runs": 0})
    refused(post(tenant, CHAT, hello(), "k1"), 402)
    with up.admin() as admin:
        admin.patch(f"/v1/tenants/{tenant.id}", json={"quotas": {"runs": 1}}).raise_for_status()

    assert post(tenant, CHAT, hello(), "k1").status_code == 200


def test_a_token_is_shown_once(tenant):
    body = {"name": "k", "role": "viewer"}

    first = post(tenant, "/v1/api-keys", body, "k1").json()
    again = post(tenant, "/v1/api-keys", body, "k1").json()

    assert first["token"].startswith("kg_")
    assert again == {**first, "token": None}
    assert len(tenant.http.get("/v1/api-keys").json()["data"]) == 2


def test_a_rotation_shows_its_token_once(tenant):
    path = f"/v1/api-keys/{tenant.issue(role='viewer')['id']}/rotate"

    first = post(tenant, path, {}, "k1").json()
    again = post(tenant, path, {}, "k1").json()

    assert first["token"].startswith("kg_")
    assert again == {**first, "token": None}


def test_of_many_keys_at_once_one_is_made_and_its_token_is_told_once(tenant):
    answers = race(tenant, "/v1/api-keys", {"name": "k", "role": "viewer"})

    tokens = [answer.json()["token"] for answer in answers if answer.status_code == 201]
    assert sum(token is not None for token in tokens) == 1
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    assert len(tenant.http.get("/v1/api-keys").json()["data"]) == 2


def test_a_key_on_another_route_is_another_request(tenant):
    post(tenant, "/v1/sessions", {"agent": "echo"}, "k1").raise_for_status()

    refused(post(tenant, "/v1/agents", {"name": "x", "model": "kgents:echo"}, "k1"), 422, "idempotency-key-reused")
    refused(post(tenant, CHAT, hello(), "k1"), 422, "idempotency-key-reused")


def test_the_keys_of_a_run_are_refused_on_other_routes(tenant):
    post(tenant, CHAT, hello(), "k1").raise_for_status()

    refused(post(tenant, "/v1/sessions", {"agent": "echo"}, "k1"), 422, "idempotency-key-reused")


@pytest.mark.parametrize("key", ["k1", '"k1"'])
def test_a_quoted_key_is_the_same_as_a_bare_one(tenant, key):
    made = post(tenant, "/v1/sessions", {"agent": "echo"}, "k1").json()

    assert post(tenant, "/v1/sessions", {"agent": "echo"}, key).json() == made


def test_a_get_does_not_mind_the_header(tenant):
    assert tenant.http.get("/v1/agents", headers={"Idempotency-Key": ""}).status_code == 200


def test_while_the_first_is_being_answered_a_retry_waits(tenant):
    body = hello("/sleep 1 a b")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, tenant, CHAT, body, "k1")
        answer = None
        while not first.done() and (answer is None or answer.status_code != 409):
            answer = tenant.http.post(CHAT, json=body, headers={"Idempotency-Key": "k1"}) if _started(tenant) else None

        assert answer is not None
        refused(answer, 409, "idempotency-key-in-use")
        assert first.result().status_code == 200
    assert post(tenant, CHAT, body, "k1").json() == first.result().json()


def _started(tenant):
    return tenant.http.get("/v1/runs").json()["data"] != []
