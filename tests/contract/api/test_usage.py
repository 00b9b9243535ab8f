"""`/v1/usage`, quotas and rates: exact to the token, and to the limit."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.refusals import refused
from tests.support.tenants import METERS
from tests.support.waiting import wait_until

CHAT = "/v1/chat/completions"


def chat(tenant, text="hello", **fields):
    return tenant.http.post(CHAT, json={"model": "echo", "messages": [{"role": "user", "content": text}], **fields})


def used_by(runs):
    """What runs used of each meter, as the usage routes name it."""
    total = Counter({"runs": len(runs)})
    for run in runs:
        total.update(run["usage"])
    return {meter: total[meter] for meter in METERS}


def sums(rows):
    total = Counter()
    for row in rows:
        total[row["meter"]] += row["quantity"]
    return {meter: total[meter] for meter in METERS}


def work(tenant):
    """Runs of every kind, and what they say that they used."""
    calculator = tenant.agent(tools=[{"type": "builtin", "name": "calculator"}])["id"]
    ids = [
        tenant.run("one two three")["id"],
        tenant.run('/call calculator {"expression": "6*7"}', calculator)["id"],
        tenant.run("in the background", mode="background")["id"],
        chat(tenant).headers["x-run-id"],
        chat(tenant, stream=True).headers["x-run-id"],
        tenant.http.post("/v1/responses", json={"model": "echo", "input": "hi"}).headers["x-run-id"],
    ]
    return [tenant.ended(run_id) for run_id in ids]


def test_every_question_about_usage_has_the_same_answer(tenant):
    expected = used_by(work(tenant))

    assert expected["tool_calls"] == 1
    assert tenant.balance() == expected
    assert sums(tenant.http.get("/v1/usage/events", params={"limit": 100}).json()["data"]) == expected
    for window in ("hour", "day", "month"):
        for group_by in ("", "agent", "model", "agent,model"):
            answer = tenant.http.get("/v1/usage", params={"window": window, "group_by": group_by})
            assert sums(answer.raise_for_status().json()["data"]) == expected, (window, group_by)
    for meter in METERS:
        rows = tenant.http.get("/v1/usage", params={"meter": meter}).json()["data"]
        assert sums(rows) == {**dict.fromkeys(METERS, 0), meter: expected[meter]}


def test_each_agent_is_told_apart(tenant):
    runs = work(tenant)

    rows = tenant.http.get("/v1/usage", params={"group_by": "agent"}).json()["data"]

    for agent in {run["agent_id"] for run in runs}:
        mine = [run for run in runs if run["agent_id"] == agent]
        assert sums([row for row in rows if row["agent"] == agent]) == used_by(mine)


def test_the_events_of_a_run_are_its_usage(tenant):
    for run in work(tenant):
        events = tenant.http.get("/v1/usage/events", params={"run": run["id"]}).json()["data"]

        assert sums(events) == used_by([run])
        assert {event["run_id"] for event in events} == {run["id"]}
        assert all(event["id"].startswith(run["id"]) for event in events)


def test_events_are_paged_each_once(tenant):
    work(tenant)
    whole = [event["id"] for event in tenant.http.get("/v1/usage/events", params={"limit": 100}).json()["data"]]

    pages, after = [], ""
    while True:
        page = tenant.http.get("/v1/usage/events", params={"limit": 3, "after": after}).json()
        pages += [event["id"] for event in page["data"]]
        after = page["last_id"]
        if not page["has_more"]:
            break

    assert pages == whole
    assert len(set(whole)) == len(whole)


def test_events_go_on_only_after_one_that_is_there(tenant, new_tenant):
    other = new_tenant()
    work(other)
    theirs = other.http.get("/v1/usage/events").json()["last_id"]

    refused(tenant.http.get("/v1/usage/events", params={"after": theirs}), 422)


def test_a_time_without_usage_is_empty(tenant):
    tenant.run("hello")

    answer = tenant.http.get("/v1/usage", params={"from": "2020-01-01", "to": "2020-02-01"}).json()

    assert (answer["from"][:10], answer["to"][:10], answer["data"]) == ("2020-01-01", "2020-02-01", [])


def test_a_failed_run_uses_what_it_used(tenant):
    run = tenant.run("/fail")

    assert run["status"] == "failed"
    assert tenant.balance()["output_tokens"] == run["usage"]["output_tokens"] == 0
    tenant.check_nothing_is_left_over()


@pytest.mark.parametrize(
    "query",
    [
        "from=yesterday",
        "from=2026-13-01",
        "from=2026-01-01T00:00:00",
        "from=2026-02-01&to=2026-01-01",
        "from=0001-01-01&to=9999-12-31",
        "to=9999-12-31T23:59:59-23:59",
        "window=fortnight",
        "meter=coffee",
        "group_by=colour",
        "group_by=agent,agent,agent",
    ],
)
def test_a_question_that_can_not_be_is_refused(tenant, query):
    answer = tenant.http.get(f"/v1/usage?{query}")

    assert answer.status_code in (400, 422), answer.text
    refused(answer, answer.status_code)


class TestQuotas:
    """What a month allows."""

    def test_a_balance_says_what_is_left(self, new_tenant):
        tenant = new_tenant(quotas={"runs": 3, "output_tokens": 100_000})

        run = tenant.run("hello")

        assert tenant.balance("limit") == {
            "runs": 3,
            "input_tokens": None,
            "output_tokens": 100_000,
            "tool_calls": None,
        }
        left = 100_000 - run["usage"]["output_tokens"]
        assert tenant.balance("remaining") == {
            "runs": 2,
            "input_tokens": None,
            "output_tokens": left,
            "tool_calls": None,
        }

    @pytest.mark.parametrize("limit", [0, 1, 3])
    def test_runs_are_admitted_to_the_limit_and_no_further(self, new_tenant, limit):
        tenant = new_tenant(quotas={"runs": limit})

        answers = [chat(tenant).status_code for _ in range(limit + 2)]

        assert answers == [200] * limit + [402] * 2
        assert tenant.balance()["runs"] == limit
        tenant.check_nothing_is_left_over()

    @pytest.mark.parametrize("path", ["run", "background", "chat", "stream", "response"])
    def test_over_quota_is_told_by_every_route(self, new_tenant, path):
        tenant = new_tenant(quotas={"runs": 0})
        session = f"/v1/sessions/{tenant.session()}/runs"

        if path == "chat":
            answer = chat(tenant)
        elif path == "stream":
            answer = chat(tenant, stream=True)
        elif path == "response":
            answer = tenant.http.post("/v1/responses", json={"model": "echo", "input": "x"})
        else:
            mode = "background" if path == "background" else "wait"
            answer = tenant.http.post(session, json={"input": "x", "mode": mode})

        native = path in ("run", "background")
        assert "runs" in refused(answer, 402, "quota-exceeded" if native else "insufficient-quota")
        if native:
            assert {name: answer.json()[name] for name in ("meter", "limit", "used", "needed")} == {
                "meter": "runs",
                "limit": 0,
                "used": 0,
                "needed": 1,
            }
        assert tenant.http.get("/v1/runs").json()["data"] == []

    def test_of_many_at_once_exactly_as_many_are_admitted(self, new_tenant):
        tenant = new_tenant(quotas={"runs": 7})
        with ThreadPoolExecutor(30) as pool:
            answers = list(pool.map(lambda _: chat(tenant).status_code, range(30)))

        assert Counter(answers) == {200: 7, 402: 23}
        assert tenant.balance()["runs"] == 7
        tenant.check_nothing_is_left_over()

    def test_tokens_are_admitted_to_the_limit_by_their_worst_case(self, new_tenant):
        tenant = new_tenant(quotas={"output_tokens": 10})
        text = "a b c d e f g h i j k l"

        refused(chat(tenant, text, max_tokens=11), 402, "insufficient-quota")
        assert chat(tenant, text, max_tokens=10).status_code == 200
        refused(chat(tenant, text, max_tokens=1), 402, "insufficient-quota")

        assert tenant.balance()["output_tokens"] == 10
        assert tenant.balance("remaining")["output_tokens"] == 0

    def test_running_work_reserves_and_gives_back(self, new_tenant):
        tenant = new_tenant(quotas={"runs": 1})
        run = tenant.run("/sleep 0.05 " + "word " * 400, mode="background")
        assert tenant.balance("reserved")["runs"] + tenant.balance()["runs"] == 1

        refused(chat(tenant), 402, "insufficient-quota")
        tenant.http.post(f"/v1/runs/{run['id']}/cancel").raise_for_status()
        tenant.ended(run["id"])

        tenant.check_nothing_is_left_over()

    def test_a_quota_holds_between_the_steps_of_a_run(self, new_tenant):
        tenant = new_tenant(quotas={"input_tokens": 4000})
        agent = tenant.agent(tools=[{"type": "builtin", "name": "calculator"}], instructions="word " * 1500)

        run = tenant.run('/call calculator {"expression": "6*7"}', agent["id"])

        if run["status"] == "failed":
            assert run["error"]["code"] == "quota-exceeded"
        assert tenant.balance()["input_tokens"] <= 4000
        tenant.check_nothing_is_left_over()

    def test_a_raised_quota_counts_at_once(self, up, new_tenant):
        tenant = new_tenant(quotas={"runs": 0})
        refused(chat(tenant), 402)
        with up.admin() as admin:
            admin.patch(f"/v1/tenants/{tenant.id}", json={"quotas": {"runs": 1}}).raise_for_status()
            assert chat(tenant).status_code == 200
            refused(chat(tenant), 402)
            admin.patch(f"/v1/tenants/{tenant.id}", json={"quotas": {"runs": None}}).raise_for_status()
        assert chat(tenant).status_code == 200

    def test_a_quota_of_one_tenant_is_no_others(self, new_tenant):
        limited, other = new_tenant(quotas={"runs": 0}), new_tenant()

        refused(chat(limited), 402)
        assert chat(other).status_code == 200


class TestRates:
    """What a minute allows."""

    def test_over_rate_says_when_to_try_again(self, new_tenant):
        tenant = new_tenant(requests_per_minute=5)  # of which new_tenant has used one

        answers = [tenant.http.get("/v1/agents") for _ in range(5)]

        assert [answer.status_code for answer in answers] == [200] * 4 + [429]
        refused(answers[-1], 429, "rate-limited")
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert answers[-1].json()["limit"] == 5

    def test_every_answer_tells_of_the_limit(self, new_tenant):
        tenant = new_tenant(requests_per_minute=600)

        for path in ("/v1/agents", "/v1/agents/nobody", "/v1/nothing"):
            headers = tenant.http.get(path).headers
            assert headers["ratelimit-policy"] == '"requests";q=600;w=60'
            assert headers["ratelimit"].startswith('"requests";r=')
            assert headers["x-ratelimit-limit-requests"] == "600"
            assert int(headers["x-ratelimit-remaining-requests"]) < 600

    def test_a_run_tells_of_its_tokens_too(self, new_tenant):
        headers = chat(new_tenant(tokens_per_minute=5000)).headers

        assert headers["x-ratelimit-limit-tokens"] == "5000"
        assert int(headers["x-ratelimit-remaining-tokens"]) <= 5000

    def test_tokens_over_the_rate_are_refused_until_they_are_paid_off(self, new_tenant):
        tenant = new_tenant(tokens_per_minute=60)
        assert chat(tenant, "word " * 200).status_code == 200  # goes into debt

        answer = wait_until(lambda: (found := chat(tenant)).status_code != 200 and found)

        assert "tokens" in refused(answer, 429, "rate-limited")
        assert int(answer.headers["retry-after"]) >= 1
        assert tenant.http.get("/v1/agents").status_code == 200

    def test_a_changed_rate_counts_within_a_second(self, up, new_tenant):
        tenant = new_tenant(requests_per_minute=2)
        wait_until(lambda: tenant.http.get("/v1/agents").status_code == 429)
        with up.admin() as admin:
            admin.patch(f"/v1/tenants/{tenant.id}", json={"requests_per_minute": 60_000}).raise_for_status()

        wait_until(lambda: tenant.http.get("/v1/agents").status_code == 200, seconds=2)

    def test_a_rate_of_one_tenant_is_no_others(self, new_tenant):
        limited, other = new_tenant(requests_per_minute=1), new_tenant()

        refused(limited.http.get("/v1/agents"), 429)
        assert other.http.get("/v1/agents").status_code == 200
