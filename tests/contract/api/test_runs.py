"""`/v1/sessions` and `/v1/runs`: conversations, and runs that are waited for, streamed, queued and cancelled."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.events import read_events
from tests.support.refusals import refused
from tests.support.waiting import wait_until

SLOW = "/sleep 0.05 " + " ".join(["word"] * 400)  # about 20 s
WEATHER = {"name": "weather", "parameters": {"type": "object"}}


def events_of(answer):
    return list(read_events(answer))


def check_ids(events):
    """They count from 1, so none is missing and none comes twice."""
    assert [event.id for event in events] == [str(number) for number in range(1, len(events) + 1)]


def start(tenant, text, mode="background"):
    """The id of a run that has begun."""
    run = tenant.run(text, mode=mode)
    wait_until(lambda: tenant.http.get(f"/v1/runs/{run['id']}").json()["status"] == "running")
    return run["id"]


class TestSessions:
    """`/v1/sessions`."""

    def test_a_session_is_what_it_was_created_as(self, tenant):
        answer = tenant.http.post("/v1/sessions", json={"agent": "echo", "metadata": {"topic": "milk"}})

        assert answer.status_code == 201
        made = answer.json()
        assert (made["object"], made["metadata"]) == ("session", {"topic": "milk"})
        assert made["agent_id"] == tenant.http.get("/v1/agents/echo").json()["id"]
        assert tenant.http.get(f"/v1/sessions/{made['id']}").json() == made

    def test_an_agents_id_is_as_good_as_its_name(self, tenant):
        agent = tenant.agent()

        answer = tenant.http.post("/v1/sessions", json={"agent": agent["id"]})

        assert answer.json()["agent_id"] == agent["id"]

    def test_sessions_are_paged_and_filtered_by_agent(self, tenant):
        other = tenant.agent()
        mine = [tenant.session() for _ in range(3)]
        others = [tenant.session(other["id"])]

        first = tenant.http.get("/v1/sessions", params={"limit": 2}).json()
        rest = tenant.http.get("/v1/sessions", params={"limit": 2, "after": first["last_id"]}).json()
        filtered = tenant.http.get("/v1/sessions", params={"agent_id": other["id"]}).json()

        assert sorted(row["id"] for row in first["data"] + rest["data"]) == sorted(mine + others)
        assert (first["has_more"], rest["has_more"]) == (True, False)
        assert [row["id"] for row in filtered["data"]] == others

    def test_what_was_said_follows_on(self, tenant):
        session = tenant.session()
        path = f"/v1/sessions/{session}/runs"
        runs = [tenant.http.post(path, json={"input": text}).json() for text in ("one", "two", "three")]

        messages = tenant.http.get(f"/v1/sessions/{session}/messages").json()["data"]

        assert [(message["role"], message["content"]) for message in messages] == [
            (role, text) for text in ("one", "two", "three") for role in ("user", "assistant")
        ]
        assert [message["run_id"] for message in messages] == [run["id"] for run in runs for _ in range(2)]
        tokens = [run["usage"]["input_tokens"] for run in runs]
        assert tokens == sorted(set(tokens)), "each run reads more than the one before"

    def test_messages_are_paged(self, tenant):
        run = tenant.run("hello")
        path = f"/v1/sessions/{run['session_id']}/messages"

        first = tenant.http.get(path, params={"limit": 1}).json()
        rest = tenant.http.get(path, params={"limit": 1, "after": first["last_id"]}).json()

        assert [page["data"][0]["role"] for page in (first, rest)] == ["user", "assistant"]
        assert (first["has_more"], rest["has_more"]) == (True, False)

    def test_every_page_of_many_messages_is_told(self, tenant):
        path, said = f"/v1/sessions/{tenant.session()}", [f"number {number}" for number in range(130)]
        given = [{"role": "user", "content": text} for text in said]
        tenant.http.post(f"{path}/runs", json={"input": given}).raise_for_status()

        told, after = [], ""
        while page := tenant.http.get(f"{path}/messages", params={"limit": 60, "after": after}).json()["data"]:
            told += [message["content"] for message in page]
            after = page[-1]["id"]

        assert told[:-1] == said

    def test_a_deleted_session_is_gone_and_its_usage_stays(self, tenant):
        run = tenant.run("hello")
        used = tenant.balance()

        assert tenant.http.delete(f"/v1/sessions/{run['session_id']}").status_code == 200

        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/messages"), ("POST", "/runs")):
            body = {"json": {"input": "x"}} if method == "POST" else {}
            refused(tenant.http.request(method, f"/v1/sessions/{run['session_id']}{path}", **body), 404)
        assert tenant.balance() == used
        assert tenant.http.get(f"/v1/runs/{run['id']}").status_code == 200

    def test_what_a_deleted_session_said_is_in_no_event(self, tenant):
        path, session = "/v1/sessions", tenant.session()
        streamed = tenant.http.post(f"{path}/{session}/runs", json={"input": "hello", "mode": "stream"})
        run_id = streamed.headers["X-Run-Id"]
        assert "hello" in tenant.http.get(f"/v1/runs/{run_id}/events").text

        tenant.http.delete(f"{path}/{session}").raise_for_status()

        told = tenant.http.get(f"/v1/runs/{run_id}/events").text
        assert told.count("data:") == 1
        assert "hello" not in told

    def test_a_busy_session_takes_no_other_run_and_is_not_deleted(self, tenant):
        run_id = start(tenant, SLOW)
        session = tenant.http.get(f"/v1/runs/{run_id}").json()["session_id"]

        for mode in ("wait", "stream", "background"):
            body = {"input": "x", "mode": mode}
            refused(tenant.http.post(f"/v1/sessions/{session}/runs", json=body), 409, "session-busy")
        refused(tenant.http.delete(f"/v1/sessions/{session}"), 409, "session-busy")

        tenant.http.post(f"/v1/runs/{run_id}/cancel").raise_for_status()
        assert tenant.ended(run_id)["status"] == "cancelled"
        tenant.http.post(f"/v1/sessions/{session}/runs", json={"input": "x"}).raise_for_status()
        tenant.check_nothing_is_left_over()

    def test_of_many_runs_at_once_a_session_takes_one(self, tenant):
        path = f"/v1/sessions/{tenant.session()}/runs"
        with ThreadPoolExecutor(20) as pool:
            answers = list(
                pool.map(lambda _: tenant.http.post(path, json={"input": SLOW, "mode": "background"}), range(20))
            )

        taken = [answer.json()["id"] for answer in answers if answer.status_code == 202]
        for answer in answers:
            if answer.status_code != 202:
                refused(answer, 409, "session-busy")
        for run_id in taken:
            tenant.http.post(f"/v1/runs/{run_id}/cancel")
            tenant.ended(run_id)
        assert len(taken) == 1


class TestRuns:
    """`/v1/runs`."""

    def test_a_run_that_is_waited_for_answers_with_its_end(self, tenant):
        run = tenant.run("one two")

        assert (run["object"], run["status"], run["mode"]) == ("run", "completed", "wait")
        assert run["output"] == {"text": "one two", "tool_calls": [], "finish_reason": "stop"}
        assert run["created_at"] <= run["started_at"] <= run["finished_at"]
        assert tenant.http.get(f"/v1/runs/{run['id']}").json() == run

    def test_a_background_run_answers_at_once_and_ends(self, tenant):
        answer = tenant.http.post(
            f"/v1/sessions/{tenant.session()}/runs", json={"input": "one two", "mode": "background"}
        )

        assert answer.status_code == 202
        assert answer.json()["status"] == "queued"
        run = tenant.ended(answer.json()["id"])
        assert (run["status"], run["output"]["text"]) == ("completed", "one two")
        tenant.check_nothing_is_left_over()

    def test_a_streamed_run_carries_its_events(self, tenant):
        answer = tenant.http.post(
            f"/v1/sessions/{tenant.session()}/runs", json={"input": "one two three", "mode": "stream"}
        )

        events = events_of(answer)
        assert answer.headers["content-type"].startswith("text/event-stream")
        check_ids(events)
        assert (events[0].type, events[-1].type) == ("run.created", "run.completed")
        assert "".join(event.data["text"] for event in events if event.type == "text.delta") == "one two three"
        run = tenant.http.get(f"/v1/runs/{answer.headers['x-run-id']}").json()
        assert events[-1].data["usage"] == run["usage"]

    @pytest.mark.parametrize("mode", ["stream", "background"])
    def test_events_are_resumed_after_any_of_them(self, tenant, mode):
        path = f"/v1/sessions/{tenant.session()}/runs"
        run_id = tenant.http.post(path, json={"input": "one two three", "mode": mode}).headers["x-run-id"]
        tenant.ended(run_id)
        events = events_of(tenant.http.get(f"/v1/runs/{run_id}/events"))

        for seen in range(len(events)):
            answer = tenant.http.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": str(seen)})
            assert events_of(answer) == events[seen:]

    @pytest.mark.parametrize("mode", ["stream", "background", "wait"])
    def test_who_has_the_last_event_is_told_that_there_are_no_more(self, tenant, mode):
        path = f"/v1/sessions/{tenant.session()}/runs"
        run_id = tenant.http.post(path, json={"input": "one two three", "mode": mode}).headers["x-run-id"]
        tenant.ended(run_id)
        last = events_of(tenant.http.get(f"/v1/runs/{run_id}/events"))[-1].id

        answer = tenant.http.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": last})

        assert (answer.status_code, answer.content) == (204, b"")

    def test_a_run_is_followed_while_it_works(self, tenant):
        run_id = start(tenant, "/sleep 0.05 " + "word " * 20)

        events = events_of(tenant.http.get(f"/v1/runs/{run_id}/events"))

        check_ids(events)
        assert events[-1].type == "run.completed"
        text = "".join(event.data["text"] for event in events if event.type == "text.delta")
        assert text == tenant.http.get(f"/v1/runs/{run_id}").json()["output"]["text"]

    def test_the_events_of_a_run_that_was_waited_for_are_its_end(self, tenant):
        run = tenant.run("hello")

        events = events_of(tenant.http.get(f"/v1/runs/{run['id']}/events"))

        assert [event.type for event in events] == ["run.completed"]
        assert events[0].data["output"] == run["output"]

    def test_a_run_keeps_the_version_that_it_started_with(self, tenant):
        run_id = start(tenant, SLOW)
        tenant.http.patch("/v1/agents/echo", json={"instructions": "Be brief."}).raise_for_status()
        tenant.http.post(f"/v1/runs/{run_id}/cancel").raise_for_status()

        assert tenant.ended(run_id)["agent_version"] == 1
        assert tenant.run("hello")["agent_version"] == 2

    def test_who_changes_an_agent_sees_it_at_once(self, tenant):
        for version in range(2, 12):
            tenant.http.patch("/v1/agents/echo", json={"description": str(version)}).raise_for_status()
            answer = tenant.http.post(
                "/v1/chat/completions", json={"model": "echo", "messages": [{"role": "user", "content": "x"}]}
            )
            assert tenant.http.get(f"/v1/runs/{answer.headers['x-run-id']}").json()["agent_version"] == version

    def test_a_deleted_agent_takes_no_run_at_once(self, tenant):
        body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
        tenant.http.post("/v1/chat/completions", json=body).raise_for_status()
        tenant.http.delete("/v1/agents/echo").raise_for_status()

        refused(tenant.http.post("/v1/chat/completions", json=body), 404, "agent-not-found")

    def test_changes_of_an_agent_at_the_same_time_are_all_kept(self, tenant):
        changes = [{"instructions": "i"}, {"description": "d"}, {"temperature": 0.25}, {"limits": {"max_steps": 3}}]
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda change: tenant.http.patch("/v1/agents/echo", json=change), changes))

        assert [answer.status_code for answer in answers] == [200] * 4
        agent = tenant.http.get("/v1/agents/echo").json()
        assert (agent["instructions"], agent["description"], agent["temperature"]) == ("i", "d", 0.25)
        assert (agent["limits"]["max_steps"], agent["version"]) == (3, 5)

    def test_runs_are_listed_newest_first_and_filtered(self, tenant):
        runs = [tenant.run(text)["id"] for text in ("a", "b", "c")]
        failed = tenant.run("/fail")

        first = tenant.http.get("/v1/runs", params={"limit": 2}).json()
        rest = tenant.http.get("/v1/runs", params={"limit": 2, "after": first["last_id"]}).json()
        by_status = tenant.http.get("/v1/runs", params={"status": "failed"}).json()["data"]
        by_session = tenant.http.get("/v1/runs", params={"session_id": failed["session_id"]}).json()["data"]

        assert [run["id"] for run in first["data"] + rest["data"]] == [failed["id"], *reversed(runs)]
        assert (first["has_more"], rest["has_more"]) == (True, False)
        assert by_status == by_session == [failed]

    @pytest.mark.parametrize("mode", ["background", "stream"])
    def test_a_running_run_is_cancelled_and_what_it_used_is_metered(self, tenant, mode):
        with ThreadPoolExecutor(1) as pool:
            path = f"/v1/sessions/{tenant.session()}/runs"
            answer = pool.submit(tenant.http.post, path, json={"input": SLOW, "mode": mode})
            run_id = wait_until(
                lambda: next((run["id"] for run in tenant.http.get("/v1/runs?status=running").json()["data"]), None)
            )
            assert tenant.http.post(f"/v1/runs/{run_id}/cancel").json()["cancel_requested"]
            answer.result().raise_for_status()

        run = tenant.ended(run_id)
        assert run["status"] == "cancelled"
        assert 0 < run["usage"]["output_tokens"] < 400
        assert tenant.balance()["runs"] == 1
        tenant.check_nothing_is_left_over()

    def test_cancelling_again_changes_nothing(self, tenant):
        run_id = start(tenant, SLOW)
        for _ in range(3):
            assert tenant.http.post(f"/v1/runs/{run_id}/cancel").status_code == 200
        run = tenant.ended(run_id)

        assert tenant.http.post(f"/v1/runs/{run_id}/cancel").json() == run

    def test_a_finished_run_is_not_cancelled(self, tenant):
        refused(tenant.http.post(f"/v1/runs/{tenant.run('hello')['id']}/cancel"), 409, "run-finished")

    def test_a_run_that_takes_too_long_ends(self, tenant):
        agent = tenant.agent(limits={"timeout_seconds": 1})

        run = tenant.run(SLOW, agent["id"])

        assert (run["status"], run["error"]["code"]) == ("failed", "model-timeout")
        tenant.check_nothing_is_left_over()

    def test_a_run_that_takes_too_many_steps_ends(self, tenant):
        agent = tenant.agent(limits={"max_steps": 1}, tools=[{"type": "builtin", "name": "calculator"}])

        run = tenant.run('/call calculator {"expression": "6*7"}', agent["id"])

        assert (run["status"], run["error"]["code"]) == ("failed", "max-steps")
        tenant.check_nothing_is_left_over()

    def test_a_run_that_calls_too_many_tools_at_once_ends(self, tenant):
        agent = tenant.agent(tools=[{"type": "builtin", "name": "calculator"}])

        run = tenant.run("\n".join(['/call calculator {"expression": "6*7"}'] * 129), agent["id"])

        assert (run["status"], run["error"]["code"]) == ("failed", "too-many-tool-calls")
        assert run["usage"]["tool_calls"] == 0
        tenant.check_nothing_is_left_over()

    def test_a_tool_is_called_and_counted(self, tenant):
        agent = tenant.agent(tools=[{"type": "builtin", "name": "calculator"}])

        run = tenant.run('/call calculator {"expression": "6*7"}', agent["id"])

        assert "42" in run["output"]["text"]
        assert run["usage"]["tool_calls"] == tenant.balance()["tool_calls"] == 1
        messages = tenant.http.get(f"/v1/sessions/{run['session_id']}/messages").json()["data"]
        assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
        assert json.loads(messages[1]["tool_calls"][0]["arguments"]) == {"expression": "6*7"}

    def test_an_output_matches_its_schema(self, tenant):
        schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

        run = tenant.run("anything", output_schema=schema)

        assert isinstance(json.loads(run["output"]["text"])["city"], str)


@pytest.mark.parametrize("gone", ["deleted", "not stored"])
def test_a_response_that_is_not_kept_can_not_be_followed_on_from(tenant, gone):
    body = {"model": "echo", "input": "one", "store": gone != "not stored"}
    first = tenant.http.post("/v1/responses", json=body).raise_for_status().json()["id"]
    if gone == "deleted":
        tenant.http.delete(f"/v1/responses/{first}").raise_for_status()

    answer = tenant.http.post("/v1/responses", json={"model": "echo", "input": "two", "previous_response_id": first})

    refused(answer, 404)
    tenant.check_nothing_is_left_over()


LONG = "word " * 190_000  # nearly all that a body may hold


def talker(tenant):
    """The id of an agent that answers with as much."""
    return tenant.agent(limits={"max_output_tokens": 1_000_000})["id"]


def test_a_session_grows_to_what_a_run_can_take(tenant):
    runs = f"/v1/sessions/{tenant.session(talker(tenant))}/runs"
    for key in ("one", "two", "three"):
        last = tenant.http.post(runs, json={"input": LONG}, headers={"Idempotency-Key": key}).raise_for_status()

    refused(tenant.http.post(runs, json={"input": "one more"}), 422, "history-too-long")
    again = tenant.http.post(runs, json={"input": LONG}, headers={"Idempotency-Key": "three"})
    assert (again.status_code, again.json()["id"]) == (last.status_code, last.json()["id"])
    tenant.check_nothing_is_left_over()


def test_a_page_of_large_runs_ends_early(tenant):
    agent = talker(tenant)
    made = [tenant.run(LONG, agent)["id"] for _ in range(6)]

    first = tenant.http.get("/v1/runs", params={"limit": 100}).json()
    rest = tenant.http.get("/v1/runs", params={"limit": 100, "after": first["last_id"]}).json()

    assert len(first["data"]) == 4  # of a MB each
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert [run["id"] for run in (*first["data"], *rest["data"])] == made[::-1]


def test_responses_follow_on_from_each_other_as_far_as_a_run_can_take(tenant):
    said = {"model": talker(tenant), "input": LONG}
    for _ in range(3):
        said["previous_response_id"] = tenant.http.post("/v1/responses", json=said).raise_for_status().json()["id"]

    answer = tenant.http.post("/v1/responses", json=said)

    refused(answer, 422, "history-too-long")
    tenant.check_nothing_is_left_over()


def test_an_empty_schema_is_a_schema(tenant):
    tenant.agent(name="clerk", output_schema={"type": "object", "required": ["city"]})

    assert tenant.run("hello", "clerk", output_schema={})["output"]["text"] == "null"


def test_nothing_of_another_tenant_is_there(new_tenant):
    owner, stranger = new_tenant(), new_tenant()
    run = owner.run("secret words")
    session, run_id = run["session_id"], run["id"]
    response = owner.http.post("/v1/responses", json={"model": "echo", "input": "secret words"}).json()["id"]

    for method, path, body in (
        ("GET", f"/v1/sessions/{session}", None),
        ("GET", f"/v1/sessions/{session}/messages", None),
        ("DELETE", f"/v1/sessions/{session}", None),
        ("POST", f"/v1/sessions/{session}/runs", {"input": "x"}),
        ("GET", f"/v1/runs/{run_id}", None),
        ("GET", f"/v1/runs/{run_id}/events", None),
        ("POST", f"/v1/runs/{run_id}/cancel", None),
        ("GET", f"/v1/responses/{response}", None),
        ("DELETE", f"/v1/responses/{response}", None),
        ("POST", f"/v1/responses/{response}/cancel", None),
        ("POST", "/v1/responses", {"model": "echo", "input": "x", "previous_response_id": response}),
    ):
        answer = stranger.http.request(method, path, **({"json": body} if body else {}))
        assert "secret words" not in refused(answer, 404)
    for path in ("/v1/sessions", "/v1/runs", f"/v1/runs?session_id={session}", f"/v1/usage/events?run={run_id}"):
        assert stranger.http.get(path).json()["data"] == []
    assert owner.http.get(f"/v1/runs/{run_id}").json() == run


def test_a_viewer_reads_and_does_nothing(tenant):
    run = tenant.run("hello")
    with tenant.client(role="viewer") as viewer:
        for path in (f"/v1/sessions/{run['session_id']}", f"/v1/runs/{run['id']}", "/v1/runs", "/v1/usage"):
            assert viewer.get(path).status_code == 200
        refused(viewer.post("/v1/sessions", json={"agent": "echo"}), 403, "missing-scope")
        refused(viewer.delete(f"/v1/sessions/{run['session_id']}"), 403, "missing-scope")
        refused(viewer.post(f"/v1/sessions/{run['session_id']}/runs", json={"input": "x"}), 403, "missing-scope")
        refused(viewer.post(f"/v1/runs/{run['id']}/cancel"), 403, "missing-scope")
        body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
        refused(viewer.post("/v1/chat/completions", json=body), 403, "missing-scope")
        refused(viewer.post("/v1/responses", json={"model": "echo", "input": "x"}), 403, "missing-scope")
