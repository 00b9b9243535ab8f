"""A model provider that fails in every way it can: each is one clear error, and nothing is half-written."""

from __future__ import annotations

import json

import pytest

from tests.support.refusals import refused
from tests.support.upstream import SECRET_IN_ANSWERS
from tests.support.waiting import wait_until

CHAT = "/v1/chat/completions"
# The scene that the upstream plays, the problem that a caller is told of, and its status.
FAULTS = [
    ("up:500", "model-failed", 502),
    ("up:503", "model-failed", 502),
    ("up:504", "model-timeout", 504),
    ("up:400", "model-rejected", 502),
    ("up:401", "model-credentials", 502),
    ("up:403", "model-credentials", 502),
    ("up:404", "model-not-found", 502),
    ("up:429", "model-rate-limited", 502),
    ("up:quota", "model-quota", 502),
    ("up:context", "model-context-exceeded", 502),
    ("up:redirect", "model-failed", 502),
    ("up:hang", "model-timeout", 504),
    ("up:close", "model-unreachable", 502),
    ("up:not-http", "model-unreachable", 502),
    ("up:not-json", "model-failed", 502),
    ("up:broken-json", "model-failed", 502),
    ("up:other-json", "model-failed", 502),
    ("up:null-json", "model-failed", 502),
    ("up:binary", "model-failed", 502),
    ("away:any", "model-unreachable", 502),
]
# These begin a stream well, so that only streams can meet them.
STREAM_FAULTS = [
    ("up:hang-midway", "model-timeout", 504),
    ("up:close-midway", "model-unreachable", 502),
    ("up:error-midway", "model-failed", 502),
]
faults = pytest.mark.parametrize(("model", "code", "status"), FAULTS, ids=[fault[0] for fault in FAULTS])
stream_faults = pytest.mark.parametrize(
    ("model", "code", "status"), FAULTS + STREAM_FAULTS, ids=[fault[0] for fault in FAULTS + STREAM_FAULTS]
)


@pytest.fixture
def agent(tenant, model):
    return tenant.agent(name="clerk", model=model, limits={"timeout_seconds": 1})["name"]


def events_of(text):
    """The events of an SSE body, as (type, data)."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if "data" in fields:
            found.append((fields.get("event", ""), fields["data"]))
    return found


def check_error(error, code, status):
    assert (error["code"], error["status"]) == (code, status)
    assert error["title"]
    check_text(error["detail"])


def check_text(text):
    assert text
    assert not any(part in text for part in ("Traceback", SECRET_IN_ANSWERS, "sk-of-the-operator", "127.0.0.1"))


@faults
def test_a_completion_is_refused(tenant, agent, code, status):
    answer = tenant.http.post(CHAT, json={"model": agent, "messages": [{"role": "user", "content": "hello"}]})

    check_text(refused(answer, status, code))
    check_text(answer.text)
    tenant.check_nothing_is_left_over()


@stream_faults
def test_a_streamed_completion_ends_with_the_error(tenant, agent, code, status):
    body = {"model": agent, "messages": [{"role": "user", "content": "hello"}], "stream": True}

    answer = tenant.http.post(CHAT, json=body)

    errors = [found for _, data in events_of(answer.text) if (found := json.loads(data).get("error"))]
    assert [error["code"] for error in errors] == [code.replace("-", "_")]
    check_text(answer.text)
    tenant.check_nothing_is_left_over()


@faults
def test_a_response_is_refused(tenant, agent, code, status):
    answer = tenant.http.post("/v1/responses", json={"model": agent, "input": "hello"})

    check_text(refused(answer, status, code))
    tenant.check_nothing_is_left_over()


@stream_faults
def test_a_streamed_response_ends_as_failed(tenant, agent, code, status):
    answer = tenant.http.post("/v1/responses", json={"model": agent, "input": "hello", "stream": True})

    events = [json.loads(data) for _, data in events_of(answer.text)]
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["status"] == "failed"
    check_text(events[-1]["response"]["error"]["message"])
    check_text(answer.text)
    tenant.check_nothing_is_left_over()


@faults
def test_a_run_that_is_waited_for_ends_as_failed(tenant, agent, code, status):
    run = tenant.run("hello", agent)

    assert (run["status"], run["output"]) == ("failed", None)
    check_error(run["error"], code, status)
    assert tenant.http.get(f"/v1/runs/{run['id']}").json()["error"] == run["error"]
    tenant.check_nothing_is_left_over()


@stream_faults
def test_a_streamed_run_ends_as_failed(tenant, agent, code, status):
    answer = tenant.http.post(f"/v1/sessions/{tenant.session(agent)}/runs", json={"input": "hello", "mode": "stream"})

    events = events_of(answer.text)
    assert [type_ for type_, _ in events if type_ != "text.delta"] == ["run.created", "run.failed"]
    check_error(json.loads(events[-1][1])["error"], code, status)
    check_text(answer.text)
    tenant.check_nothing_is_left_over()


@stream_faults
def test_a_background_run_ends_as_failed(tenant, agent, code, status):
    run = tenant.ended(tenant.run("hello", agent, mode="background")["id"])

    assert run["status"] == "failed"
    check_error(run["error"], code, status)
    tenant.check_nothing_is_left_over()


@pytest.mark.parametrize("model", ["up:429"])
def test_when_to_try_again_is_passed_on(tenant, agent):
    body = {"model": agent, "messages": [{"role": "user", "content": "hello"}]}

    assert tenant.http.post(CHAT, json=body).headers["retry-after"] == "7"


@pytest.mark.parametrize("model", ["up:500"])
def test_a_session_goes_on_after_a_run_that_failed(tenant, agent):
    session = tenant.session(agent)
    path = f"/v1/sessions/{session}/runs"
    assert tenant.http.post(path, json={"input": "one"}).json()["status"] == "failed"
    tenant.http.patch(f"/v1/agents/{agent}", json={"model": "kgents:echo"}).raise_for_status()

    def completed():
        run = tenant.http.post(path, json={"input": "two"}).raise_for_status().json()
        return run if run["agent_version"] == 2 else None

    # Another process may have the agent's old version for up to a second.
    assert wait_until(completed, what="the new version is used")["status"] == "completed"
    messages = tenant.http.get(f"/v1/sessions/{session}/messages").json()["data"]
    assert [message["content"] for message in messages] == ["two", "two"]


@pytest.mark.parametrize("model", ["up:answer", "up:no-usage"])
@pytest.mark.parametrize("mode", ["wait", "background"])
def test_a_provider_that_is_well_is_metered(tenant, agent, mode):
    run = tenant.ended(tenant.run("hello", agent, mode=mode)["id"])

    assert run["output"]["text"] == "Hello from upstream"
    assert run["usage"]["input_tokens"] > 0
    assert run["usage"]["output_tokens"] > 0
    assert tenant.balance()["runs"] == 1
    tenant.check_nothing_is_left_over()


def reports(tenant, run):
    """The tokens that a run was metered with, and whether they are estimates."""
    events = tenant.http.get("/v1/usage/events", params={"run": run}).raise_for_status().json()["data"]
    return {event["meter"]: (event["quantity"], event["estimated"]) for event in events if "tokens" in event["meter"]}


@pytest.mark.parametrize("model", ["up:close-after-usage", "up:close-after-tool-call"])
def test_what_was_reported_before_the_connection_broke_is_metered_as_reported(tenant, agent):
    body = {"model": agent, "messages": [{"role": "user", "content": "hello"}], "stream": True}

    run = tenant.http.post(CHAT, json=body).headers["x-run-id"]

    assert reports(tenant, run) == {"input_tokens": (11, False), "output_tokens": (3, False)}


@pytest.mark.parametrize("model", ["up:done-and-hang", "up:done-and-close"])
def test_an_answer_of_which_all_was_said_is_whole_however_it_ends(tenant, agent):
    answer = tenant.http.post(f"/v1/sessions/{tenant.session(agent)}/runs", json={"input": "hello", "mode": "stream"})

    ended = json.loads(events_of(answer.text)[-1][1])
    assert (ended["status"], ended["output"]["text"]) == ("completed", "Hello from upstream")
    assert reports(tenant, answer.headers["x-run-id"]) == {"input_tokens": (11, False), "output_tokens": (3, False)}
    tenant.check_nothing_is_left_over()


@pytest.mark.parametrize("model", ["up:answer", "up:usage-in-each"])
def test_the_usage_of_a_stream_is_the_last_that_was_reported(tenant, agent):
    body = {"model": agent, "messages": [{"role": "user", "content": "hello"}], "stream": True}

    run = tenant.http.post(CHAT, json=body).headers["x-run-id"]

    assert reports(tenant, run) == {"input_tokens": (11, False), "output_tokens": (3, False)}


@pytest.mark.parametrize("model", ["up:no-choices", "up:null-message", "up:custom-call"])
def test_what_was_reported_with_an_answer_that_cannot_be_read_is_metered_as_reported(tenant, agent):
    run = tenant.run("hello", agent)

    assert run["error"]["code"] == "model-failed"
    assert reports(tenant, run["id"]) == {"input_tokens": (11, False), "output_tokens": (3, False)}
    tenant.check_nothing_is_left_over()


@pytest.mark.parametrize("model", ["up:no-choices-and-no-usage"])
def test_an_answer_that_cannot_be_read_and_reports_no_usage_is_metered_as_an_estimate(tenant, agent):
    run = tenant.run("hello", agent)

    assert {estimated for _, estimated in reports(tenant, run["id"]).values()} == {True}


@pytest.mark.parametrize("model", ["up:no-usage"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_an_answer_whose_usage_is_not_reported_is_metered_as_an_estimate(tenant, agent, stream):
    body = {"model": agent, "messages": [{"role": "user", "content": "hello"}], "stream": stream}

    run = tenant.http.post(CHAT, json=body).headers["x-run-id"]

    assert {estimated for _, estimated in reports(tenant, run).values()} == {True}


@pytest.mark.parametrize("model", ["up:claims-fractions"])
def test_usage_that_is_no_number_of_tokens_is_metered_as_an_estimate(tenant, agent):
    body = {"model": agent, "messages": [{"role": "user", "content": "hello"}], "stream": True}

    run = tenant.http.post(CHAT, json=body).headers["x-run-id"]

    assert {(type(quantity), estimated) for quantity, estimated in reports(tenant, run).values()} == {(int, True)}
    assert tenant.http.get(f"/v1/runs/{run}").status_code == 200
    tenant.check_nothing_is_left_over()


@pytest.mark.parametrize("model", ["up:half-characters"])
def test_characters_that_came_in_halves_are_whole(tenant, agent):
    answer = tenant.http.post(f"/v1/sessions/{tenant.session(agent)}/runs", json={"input": "hello", "mode": "stream"})

    events = [(type_, json.loads(data)) for type_, data in events_of(answer.text)]
    ended = events[-1][1]
    assert (ended["status"], ended["output"]["text"]) == ("completed", "Hello \U0001f600!\ufffd")
    assert "".join(data["text"] for type_, data in events if type_ == "text.delta") == ended["output"]["text"]
    tenant.check_nothing_is_left_over()


@pytest.mark.parametrize("model", ["up:odd-types"])
def test_a_session_goes_on_after_an_answer_with_values_of_other_types(tenant, agent):
    path = f"/v1/sessions/{tenant.session(agent)}/runs"
    tenant.http.post(path, json={"input": "one", "mode": "stream"})

    second = tenant.http.post(path, json={"input": "two", "mode": "stream"})

    assert [type_ for type_, _ in events_of(second.text)][-1] == "run.completed"
    messages = tenant.http.get(path.replace("runs", "messages")).raise_for_status().json()["data"]
    assert [message["content"] for message in messages] == ["one", "Hello", "two", "Hello"]
