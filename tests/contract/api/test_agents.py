"""`/v1/agents` and `/v1/models`."""

from __future__ import annotations

import pytest

from tests.support.refusals import refused

MCP = {
    "type": "mcp",
    "name": "files",
    "url": "https://tools.example/mcp",
    "headers": {"Authorization": "Bearer s3cret", "X-Team": "blue"},
}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def test_an_agent_is_what_it_was_created_as(tenant):
    fields = {
        "name": "clerk",
        "model": "kgents:echo",
        "instructions": "Be brief.",
        "description": "Answers letters.",
        "tools": [{"type": "builtin", "name": "calculator"}],
        "output_schema": SCHEMA,
        "temperature": 0.5,
        "limits": {"max_steps": 3, "max_output_tokens": 100, "timeout_seconds": 9},
    }

    answer = tenant.http.post("/v1/agents", json=fields)

    assert answer.status_code == 201
    made = answer.json()
    assert {name: made[name] for name in fields} == fields
    assert (made["object"], made["version"]) == ("agent", 1)
    for path in ("clerk", made["id"]):
        assert tenant.http.get(f"/v1/agents/{path}").json() == made


def test_two_tools_of_one_name_are_refused(tenant):
    tools = [{"type": "builtin", "name": "clock"}] * 2

    refused(tenant.http.post("/v1/agents", json={"name": "clerk", "model": "kgents:echo", "tools": tools}), 400)


def test_a_name_is_taken_until_its_agent_is_deleted(tenant):
    body = {"name": "echo", "model": "kgents:echo"}

    refused(tenant.http.post("/v1/agents", json=body), 409, "agent-name-taken")
    tenant.http.delete("/v1/agents/echo").raise_for_status()
    assert tenant.http.post("/v1/agents", json=body).status_code == 201


def test_a_name_that_looks_like_an_id_is_refused(tenant):
    body = {"name": tenant.agent(name="clerk")["id"], "model": "kgents:echo"}

    assert "id" in refused(tenant.http.post("/v1/agents", json=body), 422)


def test_a_change_makes_a_version_and_leaves_the_rest(tenant):
    made = tenant.agent(instructions="Be brief.", temperature=0.5, output_schema=SCHEMA)
    path = f"/v1/agents/{made['id']}"

    changed = tenant.http.patch(path, json={"instructions": "Be long.", "temperature": None}).json()

    assert changed == {
        **made,
        "version": 2,
        "instructions": "Be long.",
        "temperature": None,
        "updated_at": changed["updated_at"],
    }
    assert tenant.http.get(path).json() == changed


def test_a_change_of_name_alone_makes_no_version(tenant):
    made = tenant.agent()

    changed = tenant.http.patch(f"/v1/agents/{made['id']}", json={"name": "renamed"}).json()

    assert (changed["name"], changed["version"]) == ("renamed", 1)
    refused(tenant.http.get(f"/v1/agents/{made['name']}"), 404)


@pytest.mark.parametrize(
    ("change", "status"),
    [({"name": "echo"}, 409), ({"model": "nobody:nothing"}, 422), ({"tools": [MCP, MCP]}, 400), ({"limits": 7}, 422)],
)
def test_a_change_that_is_refused_changes_nothing(tenant, change, status):
    made = tenant.agent()

    refused(tenant.http.patch(f"/v1/agents/{made['id']}", json={"instructions": "x", **change}), status)

    assert tenant.http.get(f"/v1/agents/{made['id']}").json() == made


def test_versions_are_listed_and_read(tenant):
    path = f"/v1/agents/{tenant.agent(instructions='one')['id']}"
    for text in ("two", "three"):
        tenant.http.patch(path, json={"instructions": text}).raise_for_status()

    first = tenant.http.get(f"{path}/versions", params={"limit": 2}).json()
    rest = tenant.http.get(f"{path}/versions", params={"limit": 2, "after": first["last_id"]}).json()

    assert [item["instructions"] for item in first["data"] + rest["data"]] == ["one", "two", "three"]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert tenant.http.get(f"{path}/versions/2").json()["instructions"] == "two"
    refused(tenant.http.get(f"{path}/versions/4"), 404)


def test_a_secret_of_a_tool_is_never_shown(tenant):
    body = {"name": "clerk", "model": "kgents:echo", "tools": [MCP]}
    answers = [tenant.http.post("/v1/agents", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    answers += [tenant.http.get(f"/v1/agents{path}") for path in ("", "/clerk", "/clerk/versions", "/clerk/versions/1")]
    answers.append(tenant.http.get("/v1/audit-log"))

    assert answers[0].json()["tools"][0]["headers"] == {"Authorization": "***", "X-Team": "***"}
    assert not any("s3cret" in answer.text for answer in answers)


def test_deleting_is_final_and_answers_with_the_agent(tenant):
    made = tenant.agent(name="clerk")

    assert tenant.http.delete("/v1/agents/clerk").json() == made

    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/versions"), ("GET", "/versions/1")):
        refused(tenant.http.request(method, f"/v1/agents/{made['id']}{path}"), 404)
    refused(tenant.http.patch(f"/v1/agents/{made['id']}", json={"instructions": "x"}), 404)
    refused(tenant.http.post("/v1/sessions", json={"agent": "clerk"}), 404)


def test_agents_are_paged_in_the_order_of_creation(tenant):
    made = ["echo", *(tenant.agent(name=f"agent-{number}")["name"] for number in range(4))]

    pages, after = [], ""
    while True:
        page = tenant.http.get("/v1/agents", params={"limit": 2, "after": after}).json()
        pages.append([agent["name"] for agent in page["data"]])
        after = page["last_id"]
        if not page["has_more"]:
            break

    assert pages == [made[0:2], made[2:4], made[4:]]


def test_another_tenants_agent_is_not_there(new_tenant):
    owner, stranger = new_tenant(), new_tenant()
    made = owner.agent(name="clerk", instructions="secret words")

    for name in (made["id"], "clerk"):
        for method, path, body in (
            ("GET", f"/v1/agents/{name}", None),
            ("GET", f"/v1/agents/{name}/versions", None),
            ("GET", f"/v1/agents/{name}/versions/1", None),
            ("PATCH", f"/v1/agents/{name}", {"instructions": "x"}),
            ("DELETE", f"/v1/agents/{name}", None),
            ("POST", "/v1/sessions", {"agent": name}),
            ("POST", "/v1/responses", {"model": name, "input": "x"}),
            ("POST", "/v1/chat/completions", {"model": name, "messages": [{"role": "user", "content": "x"}]}),
            ("GET", f"/v1/models/{name}", None),
        ):
            refused(stranger.http.request(method, path, **({"json": body} if body else {})), 404)
    for path in ("/v1/agents", "/v1/models", f"/v1/sessions?agent_id={made['id']}"):
        assert "clerk" not in stranger.http.get(path).text
    assert owner.http.get("/v1/agents/clerk").json() == made


def test_models_are_the_tenants_agents(tenant):
    tenant.agent(name="clerk")

    listed = tenant.http.get("/v1/models").json()

    assert sorted(model["id"] for model in listed["data"]) == ["clerk", "echo"]
    assert tenant.http.get("/v1/models/clerk").json() in listed["data"]
    refused(tenant.http.get("/v1/models/nobody"), 404)


def test_an_agent_that_is_sent_back_as_it_was_shown_keeps_its_secrets(tenant):
    made = tenant.agent(tools=[MCP])
    path = f"/v1/agents/{made['id']}"

    changed = tenant.http.patch(path, json={"tools": made["tools"], "instructions": "x"}).json()
    again = tenant.http.patch(path, json={"tools": made["tools"]}).json()
    real = tenant.http.patch(path, json={"tools": [MCP]}).json()

    assert (changed["version"], again["version"], real["version"]) == (2, 2, 2), "the tools did not change"


@pytest.mark.parametrize(
    "other", [{"url": "https://thief.example/mcp"}, {"name": "other"}, {"headers": {"X-New": "***"}}]
)
def test_a_hidden_value_is_no_value_for_another_tool(tenant, other):
    made = tenant.agent(tools=[MCP])

    answer = tenant.http.patch(f"/v1/agents/{made['id']}", json={"tools": [{**made["tools"][0], **other}]})

    refused(answer, 422)
    assert tenant.http.get(f"/v1/agents/{made['id']}").json() == made


def test_a_hidden_value_creates_nothing(tenant):
    tools = [{**MCP, "headers": {"Authorization": "***"}}]

    refused(tenant.http.post("/v1/agents", json={"name": "clerk", "model": "kgents:echo", "tools": tools}), 422)
