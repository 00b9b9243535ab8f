"""API1:2023. The isolation prover (tests/isolation) tries every input of every operation with every object of other
tenants. Here is what it does not: the same objects named in ways that no document tells of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import quote

import httpx2
import pytest

from tests.support.raw_http import exchange
from tests.support.tenants import Tenant, tenant_of
from tests.support.up import Up

TEXT = "what only the victim may read"
Named = dict[str, str]


@pytest.fixture(scope="module")
def owner(up: Up) -> Iterator[Tenant]:
    """The victim."""
    with tenant_of(up) as made:
        yield made


@pytest.fixture(scope="module")
def owned(owner: Tenant) -> Named:
    """A path of each kind of the victim's objects."""
    agent = owner.agent(instructions=TEXT)["id"]
    run = owner.run(TEXT)
    return {
        "agent": f"/v1/agents/{agent}",
        "session": f"/v1/sessions/{run['session_id']}",
        "messages": f"/v1/sessions/{run['session_id']}/messages",
        "run": f"/v1/runs/{run['id']}",
        "events": f"/v1/runs/{run['id']}/events",
        "response": f"/v1/responses/{run['id'].replace('run_', 'resp_')}",
        "key": f"/v1/api-keys/{owner.key[3:19]}",
    }


WAYS: dict[str, Callable[[str], str]] = {
    "as it is": lambda path: path,
    "with another case": lambda path: path[:4] + path[4:].swapcase(),
    "percent-encoded": lambda path: (
        path.rpartition("/")[0] + "/" + "".join(f"%{ord(c):02x}" for c in path.rpartition("/")[2])
    ),
    "percent-encoded twice": lambda path: "/v1/" + quote(quote(path[4:].replace("_", "%5f"))),
    "from one's own": lambda path: f"/v1/agents/echo/../..{path[3:]}",
    "from one's own, encoded": lambda path: f"/v1/agents/echo/%2e%2e/%2e%2e{path[3:]}",
    "with a wildcard": lambda path: path.replace("01", "0*", 1),
    "with a space behind": lambda path: path + "%20",
    "with a slash behind": lambda path: path + "/",
    "with parameters": lambda path: path + ";tenant=x",
    "absolute": lambda path: f"http://localhost{path}",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_victims_object_is_not_there_however_it_is_named(attacker: Tenant, owned: Named, way: str) -> None:
    for kind, path in owned.items():
        head = f"GET {WAYS[way](path)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {attacker.key}\r\n\r\n"
        answer = exchange(attacker.up.url, head.encode())
        assert answer.status_code == 404, (kind, answer.text)
        assert TEXT not in answer.text


@pytest.mark.parametrize(
    "name", ["X-Tenant-Id", "X-Kgents-Tenant", "X-User-Id", "X-Original-URL", "X-Rewrite-URL", "Forwarded", "Cookie"]
)
def test_no_header_makes_one_another(attacker: Tenant, owner: Tenant, owned: Named, name: str) -> None:
    for path in owned.values():
        for value in (owner.id, path, f"tenant={owner.id}", f"for={owner.id}"):
            assert attacker.http.get(path, headers={name: value}).status_code == 404
    answer = attacker.http.get("/v1/tenant", headers={name: owner.id})
    assert answer.json()["id"] == attacker.id


def test_a_parameter_that_is_given_twice_is_none_of_the_victims(tenant: Tenant, owned: Named) -> None:
    mine, theirs = tenant.run("mine"), owned["session"].rpartition("/")[2]
    for pair in ((mine["session_id"], theirs), (theirs, mine["session_id"])):
        answer = tenant.http.get("/v1/runs", params=[("session_id", each) for each in pair])
        assert all(run["id"] == mine["id"] for run in answer.json().get("data", []))


def test_a_victims_idempotency_key_replays_nothing(tenant: Tenant, victim: Tenant) -> None:
    body, headers = {"agent": "echo", "metadata": {"of": "whom"}}, {"Idempotency-Key": "the-same"}
    theirs = victim.http.post("/v1/sessions", json=body, headers=headers).json()
    mine = tenant.http.post("/v1/sessions", json=body, headers=headers)
    assert "idempotent-replayed" not in mine.headers
    assert mine.json()["id"] != theirs["id"]


def test_a_victims_conversation_can_not_be_taken_up(attacker: Tenant, owned: Named) -> None:
    before = owned["response"].rpartition("/")[2]
    body = {"model": "echo", "input": "and then?", "previous_response_id": before}
    assert attacker.http.post("/v1/responses", json=body).status_code == 404
    assert attacker.http.post(f"{owned['session']}/runs", json={"input": "x"}).status_code == 404


def test_a_victims_stream_can_not_be_taken_up(attacker: Tenant, owned: Named) -> None:
    for position in ("0", "1", "-1", "999"):
        answer = attacker.http.get(owned["events"], headers={"Last-Event-ID": position})
        assert answer.status_code in (400, 404, 422)
        assert TEXT not in answer.text


def test_who_has_no_key_sees_nothing(anyone: httpx2.Client, owned: Named) -> None:
    for path in owned.values():
        assert anyone.get(path).status_code == 401
