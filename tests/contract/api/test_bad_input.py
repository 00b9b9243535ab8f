"""Whatever is sent, the answer is one clear refusal, and nothing is half-written."""

from __future__ import annotations

import json

import pytest

from tests.support.raw_http import exchange
from tests.support.refusals import refused

CHAT = "/v1/chat/completions"
HELLO = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
LIMIT = 1_048_576  # bytes of a body
JSON = {"Content-Type": "application/json"}
# Every route of an error shape or a way of its own that takes a body, with a body that it takes.
BODIES = {
    "/v1/agents": {"name": "clerk", "model": "kgents:echo"},
    "/v1/sessions": {"agent": "echo"},
    "/v1/api-keys": {"name": "k", "role": "viewer"},
    "/v1/responses": {"model": "echo", "input": "hello"},
    CHAT: HELLO,
}
LISTS = ["/v1/agents", "/v1/sessions", "/v1/runs", "/v1/api-keys", "/v1/audit-log", "/v1/usage/events"]
NUL = "a\0b"
PATTERN = {"parameters": {"properties": {"a": {"pattern": "^a"}}}}


def head(tenant, path, *lines, method="POST"):
    fields = (f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {tenant.key}", *lines)
    return ("\r\n".join(fields) + "\r\n\r\n").encode("latin-1")


@pytest.mark.parametrize("path", BODIES)
class TestBodies:
    """A body that can't be accepted, on each route that takes one."""

    def test_an_unknown_field_is_named(self, tenant, path):
        answer = tenant.http.post(path, json={**BODIES[path], "colour": "blue"})

        assert "colour" in refused(answer, 422)

    @pytest.mark.parametrize("body", [b"[]", b"null", b"7", b'"text"', b"true"])
    def test_what_is_not_an_object_is_refused(self, tenant, path, body):
        refused(tenant.http.post(path, content=body, headers=JSON), 422)

    def test_no_body_is_refused(self, tenant, path):
        refused(tenant.http.post(path, headers=JSON), 422)

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b"{", id="cut off"),
            pytest.param(b"{'single': 1}", id="single quotes"),
            pytest.param(b'{"a": NaN}', id="NaN"),
            pytest.param(b'{"a": "\xff\xfe"}', id="invalid UTF-8"),
            pytest.param(b'{"a": "\xed\xa0\x80"}', id="encoded surrogate"),
            pytest.param(b'{"a": "\\ud800"}', id="lone surrogate"),
            pytest.param(b'{"a": "\\udc00x"}', id="lone low surrogate"),
            pytest.param(b"\xff\xfe{\x00}\x00", id="UTF-16"),
            pytest.param(b"\x1f\x8b\x08\x00", id="gzip"),
            pytest.param(b"{}{}", id="two documents"),
        ],
    )
    def test_what_is_not_json_is_refused(self, tenant, path, body):
        answer = tenant.http.post(path, content=body, headers=JSON)

        assert "JSON" in refused(answer, 400, "invalid-json")

    @pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "x", ""])
    def test_another_content_type_is_refused(self, tenant, path, kind):
        answer = tenant.http.post(path, content=json.dumps(BODIES[path]), headers={"Content-Type": kind})

        assert "application/json" in refused(answer, 415, "unsupported-media-type")

    @pytest.mark.parametrize("depth", [65, 10_000, 150_000])
    def test_deep_json_is_refused(self, tenant, path, depth):
        body = b'{"a":' * (depth // 2) + b"[" * (depth - depth // 2)

        refused(tenant.http.post(path, content=body, headers=JSON), 400, "too-deep")

    def test_more_objects_and_lists_than_any_request_has_are_refused(self, tenant, path):
        body = b'{"metadata":[' + b"[]," * 40_000 + b"1]}"

        refused(tenant.http.post(path, content=body, headers=JSON), 400, "too-many-values")

    def test_quotes_that_never_close_take_no_longer_than_others(self, tenant, path):
        body = b"[]" * 65 + b'"\\' * 400_000

        refused(tenant.http.post(path, content=body, headers=JSON), 400, "invalid-json")

    def test_a_body_over_the_limit_is_refused_before_it_is_read(self, tenant, path):
        request = head(tenant, path, "Content-Type: application/json", f"Content-Length: {LIMIT + 1}")

        answer = exchange(tenant.up.url, request)  # not a byte of the body is sent

        assert str(LIMIT) in refused(answer, 413, "too-large")

    def test_a_chunked_body_over_the_limit_is_refused_at_the_limit(self, tenant, path):
        lines = ("Content-Type: application/json", "Transfer-Encoding: chunked")
        request = head(tenant, path, *lines) + f"{LIMIT + 1:x}\r\n".encode() + b" " * (LIMIT + 1)

        refused(exchange(tenant.up.url, request), 413, "too-large")  # the body has not ended


def test_of_a_list_the_first_wrong_item_is_told(tenant):
    messages = [{"role": "user", "content": [{}] * 100}] * 100  # each error takes a KB of memory

    answer = tenant.http.post(f"/v1/sessions/{tenant.session()}/runs", json={"input": messages})

    assert answer.status_code == 422
    assert not [item for item in answer.json()["errors"] if ".1." in item["field"]]


def test_a_body_at_the_limit_is_accepted(tenant):
    body = b'{"name": "k", "role": "viewer"}'

    answer = tenant.http.post("/v1/api-keys", content=body + b" " * (LIMIT - len(body)), headers=JSON)

    assert answer.status_code == 201


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON"])
def test_json_is_accepted_however_it_is_named(tenant, kind):
    answer = tenant.http.post("/v1/sessions", content=b'{"agent": "echo"}', headers={"Content-Type": kind})

    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        (CHAT, "model", 7),
        (CHAT, "model", ""),
        (CHAT, "messages", []),
        (CHAT, "messages", "hello"),
        (CHAT, "messages", [{"role": "robot", "content": "x"}]),
        (CHAT, "messages", [{"role": "user"}]),
        (CHAT, "messages", [{"role": "user", "content": None}]),
        (CHAT, "messages", [{"role": "tool", "content": "x"}]),
        (CHAT, "messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]}]),
        (CHAT, "stream", "perhaps"),
        (CHAT, "max_tokens", 0),
        (CHAT, "max_tokens", 2**70),
        (CHAT, "max_completion_tokens", -1),
        (CHAT, "max_completion_tokens", 1.5),
        (CHAT, "temperature", 3),
        (CHAT, "temperature", "hot"),
        (CHAT, "seed", 2**63),
        (CHAT, "n", 2),
        (CHAT, "tools", [{"type": "function"}]),
        (CHAT, "tools", [{"type": "function", "function": {"name": "two words"}}]),
        (CHAT, "tools", [{"type": "function", "function": {"name": "f", "parameters": {"type": "nonsense"}}}]),
        (CHAT, "tools", [{"type": "function", "function": {"name": f"f{n}", **PATTERN}} for n in range(101)]),
        (CHAT, "response_format", {"type": "json_schema"}),
        (CHAT, "response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 7}}}),
        ("/v1/responses", "input", []),
        ("/v1/responses", "input", 7),
        ("/v1/responses", "tools", [{"type": "function", "name": f"f{n}", **PATTERN} for n in range(101)]),
        ("/v1/responses", "max_output_tokens", 2**70),
        ("/v1/responses", "previous_response_id", "x" * 65),
        ("/v1/sessions", "agent", ["echo"]),
        ("/v1/sessions", "metadata", {"key": 7}),
        ("/v1/sessions", "metadata", {str(number): "x" for number in range(17)}),
        ("/v1/sessions", "metadata", {"key": "x" * 513}),
        ("/v1/agents", "name", "two words"),
        ("/v1/agents", "limits", {"max_steps": 2**70}),
        ("/v1/agents", "limits", {"timeout_seconds": "1e3"}),
        ("/v1/agents", "tools", [{"type": "builtin", "name": "shell"}]),
        ("/v1/api-keys", "expires_at", "tomorrow"),
        ("/v1/api-keys", "expires_at", "2030-01-01T00:00:00"),
        ("/v1/api-keys", "expires_at", "9999-12-31T23:59:59-23:59"),
        ("/v1/api-keys", "expires_at", 10**30),
        ("/v1/api-keys", "scopes", []),
        ("/v1/api-keys", "scopes", ["everything"]),
        ("/v1/api-keys", "role", "king"),
    ],
)
def test_a_value_that_can_not_be_accepted_is_refused_by_its_field(tenant, path, field, value):
    detail = refused(tenant.http.post(path, json={**BODIES[path], field: value}), 422)

    assert field in detail
    tenant.check_nothing_is_left_over()


@pytest.mark.parametrize("url", ["data:image/png;base64,A\u00fdA", "data:image/png;base64,A", "data:image/png,AAAA"])
@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
def test_an_image_that_is_none_is_refused(tenant, path, url):
    chat = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
    item = {"role": "user", "content": [{"type": "input_image", "image_url": url}]}
    body = {"messages": [chat]} if path == CHAT else {"input": [item]}

    refused(tenant.http.post(path, json={"model": "echo", **body}), 400)
    tenant.check_nothing_is_left_over()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/agents", {"name": NUL, "model": "kgents:echo"}),
        ("/v1/agents", {"name": "clerk", "model": NUL}),
        ("/v1/sessions", {"agent": NUL}),
        ("/v1/api-keys", {"name": NUL, "role": "viewer"}),
        (CHAT, {**HELLO, "model": NUL}),
        ("/v1/responses", {"model": NUL, "input": "hello"}),
        ("/v1/responses", {"model": "echo", "input": "hello", "previous_response_id": NUL}),
        ("/v1/responses", {"model": "echo", "input": "hello", "previous_response_id": f"resp_{NUL}"}),
    ],
)
def test_a_nul_character_in_a_name_is_refused(tenant, path, body):
    answer = tenant.http.post(path, json=body)

    assert answer.status_code in (400, 404, 422), answer.text
    refused(answer, answer.status_code)


def test_a_nul_character_in_a_tenants_name_is_refused(up):
    with up.admin() as admin:
        refused(admin.post("/v1/tenants", json={"name": NUL}), 422)


def test_a_nul_character_in_what_is_said_is_kept(tenant):
    text = "before\0after"

    run = tenant.run(text)

    assert run["output"]["text"] == text
    messages = tenant.http.get(f"/v1/sessions/{run['session_id']}/messages").json()["data"]
    assert [message["content"] for message in messages] == [text, text]


def test_a_nul_character_in_a_definition_or_metadata_is_kept(tenant):
    text = "before\0after"

    made = tenant.agent(instructions=text, description=text)
    session = tenant.http.post("/v1/sessions", json={"agent": "echo", "metadata": {text: text}}).json()

    assert (made["instructions"], made["description"]) == (text, text)
    assert session["metadata"] == {text: text}


@pytest.mark.parametrize(
    "path",
    ["/v1/agents/a%00b", "/v1/runs/%00", "/v1/runs?after=%00", "/v1/usage?from=%00", "/v1/sessions/a%2500", "/%00"],
)
def test_a_nul_byte_in_a_path_or_query_is_refused(tenant, path):
    answer = exchange(tenant.up.url, head(tenant, path, method="GET"))

    refused(answer, *((404,) if "%2500" in path else (400, "nul-byte")))


@pytest.mark.parametrize("name", ["%ff", "%ed%a0%80", "%f0%9f%92%a9", "..%2fx", "a%2500"])
@pytest.mark.parametrize("path", ["/v1/agents", "/v1/runs", "/v1/sessions", "/v1/api-keys", "/v1/models"])
def test_odd_bytes_in_a_path_are_no_object(tenant, path, name):
    refused(exchange(tenant.up.url, head(tenant, f"{path}/{name}", method="GET")), 404)


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=-1",
        f"limit={2**70}",
        "limit=ten",
        "limit=1e1",
        "after=%20",
        "after=%27%20OR%201=1--",
        "after=%ff",
        f"after={'x' * 129}",
        "after=%0A",
    ],
)
def test_a_page_that_can_not_be_is_refused(tenant, path, query):
    refused(exchange(tenant.up.url, head(tenant, f"{path}?{query}", method="GET")), 422)


@pytest.mark.parametrize("path", [*LISTS, "/v1/agents/echo/versions"])
@pytest.mark.parametrize("after", ["0", "zzz", ":::", "run_", "9" * 128, "-", "..", "_" * 128, "-1", str(2**63)])
def test_a_cursor_that_was_never_given_out_is_no_error_of_ours(tenant, path, after):
    answer = tenant.http.get(path, params={"after": after})

    assert answer.status_code in (200, 400, 422), answer.text
    if answer.status_code != 200:
        refused(answer, answer.status_code)


@pytest.mark.parametrize("version", ["0", "-1", "x", str(2**31), str(2**63), "9" * 60])
def test_a_version_that_can_not_be_is_refused(tenant, version):
    answer = tenant.http.get(f"/v1/agents/echo/versions/{version}")

    assert answer.status_code in (404, 422), answer.text
    refused(answer, answer.status_code)


@pytest.mark.parametrize("value", ["-1", "x", "1.5", "9" * 19, "1 2", "\u00b2".encode()])
def test_an_event_id_that_can_not_be_is_refused(tenant, value):
    run = tenant.run("hello")

    answer = tenant.http.get(f"/v1/runs/{run['id']}/events", headers={"Last-Event-ID": value})

    assert answer.status_code in (400, 422), answer.text
    refused(answer, answer.status_code)


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "\u00fc".encode(), '""', '"', '"x', f'"{"x" * 254}"'])
def test_an_idempotency_key_that_can_not_be_is_refused(tenant, key):
    answer = tenant.http.post("/v1/sessions", json={"agent": "echo"}, headers={"Idempotency-Key": key})

    refused(answer, 400, "idempotency-key-invalid")


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", "/v1/agents/echo/nothing", "/V1/agents", "/v2/agents"])
def test_an_unknown_route_is_not_found(tenant, path):
    refused(tenant.http.get(path), 404, "no-such-route")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/agents", {"GET", "POST"}),
        ("POST", "/v1/agents/echo", {"GET", "PATCH", "DELETE"}),
        ("GET", CHAT, {"POST"}),
        ("TRACE", "/v1/agents", {"GET", "POST"}),
        ("PROPFIND", "/v1/agents", {"GET", "POST"}),
        ("DELETE", "/v1/models", {"GET"}),
    ],
)
def test_another_method_is_not_allowed(tenant, method, path, allowed):
    answer = tenant.http.request(method, path)

    refused(answer, 405, "method-not-allowed")
    assert set(answer.headers["allow"].split(", ")) == allowed


def test_a_model_that_is_not_configured_is_refused_when_the_agent_is_made(tenant):
    answer = tenant.http.post("/v1/agents", json={"name": "clerk", "model": "openai:gpt-4o"})

    assert "openai" in refused(answer, 422)
    refused(tenant.http.get("/v1/agents/clerk"), 404)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
def test_an_agent_that_is_not_there_starts_no_run(tenant, path, stream):
    answer = tenant.http.post(path, json={**BODIES[path], "model": "nobody", "stream": stream})

    refused(answer, 404, "agent-not-found")
    assert tenant.http.get("/v1/runs").json()["data"] == []
    tenant.check_nothing_is_left_over()


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], id="answered"),
        pytest.param([{"role": "tool", "tool_call_id": "nobody-called", "content": "x"}], id="a result of no call"),
    ],
)
def test_a_conversation_that_does_not_fit_together_is_refused(tenant, messages):
    answer = tenant.http.post(CHAT, json={"model": "echo", "messages": messages})

    refused(answer, 400)
    assert tenant.http.get("/v1/runs").json()["data"] == []
    tenant.check_nothing_is_left_over()


def test_a_client_that_goes_away_in_the_middle_of_its_body_leaves_nothing(tenant):
    lines = ("Content-Type: application/json", "Content-Length: 100")

    with pytest.raises(TimeoutError):
        exchange(tenant.up.url, head(tenant, CHAT, *lines) + b'{"model": "echo"', patience=0.3)

    assert tenant.http.get("/v1/runs").json()["data"] == []
    tenant.check_nothing_is_left_over()


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        (CHAT, "temperature", False),
        (CHAT, "max_tokens", "5"),
        (CHAT, "stream", 1),
        (CHAT, "stream", "true"),
        ("/v1/responses", "store", 0),
        ("/v1/agents", "temperature", "1"),
        ("/v1/agents", "limits", {"max_steps": True}),
        ("/v1/api-keys", "expires_at", 4_102_444_800),
        ("/v1/api-keys", "expires_at", "4102444800"),
        ("/v1/api-keys", "expires_at", "2100-01-01T00:00:00"),
    ],
)
def test_a_value_of_another_type_than_documented_is_refused(tenant, path, field, value):
    refused(tenant.http.post(path, json={**BODIES[path], field: value}), 422)


def test_a_whole_number_will_do_where_a_fraction_may_stand(tenant):
    assert tenant.http.post(CHAT, json={**HELLO, "temperature": 1}).status_code == 200


def test_a_refusal_echoes_the_request_id(tenant):
    answer = tenant.http.get("/v1/agents/nobody", headers={"X-Request-Id": "mine-1"})

    assert answer.headers["x-request-id"] == answer.json()["instance"] == "mine-1"


@pytest.mark.parametrize("value", ["x" * 129, "a b", "\u00fc".encode(), "a,b"])
def test_a_request_id_that_can_not_be_is_replaced(tenant, value):
    answer = tenant.http.get("/v1/agents/nobody", headers={"X-Request-Id": value})

    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    "value", ["", "00", "zz-zz-zz-zz", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\u00fc".encode()]
)
def test_a_traceparent_that_can_not_be_is_ignored(tenant, value):
    assert tenant.http.get("/v1/agents", headers={"traceparent": value}).status_code == 200
