"""A state machine of several tenants' requests: after each, what every tenant sees is what its model says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar
from uuid import uuid4

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.isolation.in_process import Answer, InProcess
from tests.isolation.model import Model, Row

TENANTS = 3
WHO = st.integers(0, TENANTS - 1)
WHICH = st.integers(0, 5)
NAMES = st.sampled_from(["alpha", "beta", "gamma"])
TEXTS = st.sampled_from(["one", "one two", "one two three"])
UNKNOWN = {"agents": "agt", "sessions": "ses", "runs": "run", "keys": "0" * 16}


class Tenants(RuleBasedStateMachine):
    """Several tenants with objects of the same names. `whose` may be another tenant: then nothing is found, and nothing
    happens.
    """

    api: ClassVar[InProcess]
    sequences: ClassVar[int] = 0
    steps: ClassVar[int] = 0
    differences: ClassVar[list[str]] = []

    def __init__(self) -> None:
        super().__init__()
        self.tenants: list[Model] = []
        self.touched: set[str] = set()

    @initialize()
    def begin(self) -> None:
        """New tenants, each with its owner's key and an agent."""
        type(self).sequences += 1
        for number in range(TENANTS):
            tenant = self.admin("POST", "/v1/tenants", {"name": f"t{number}-{uuid4().hex}"}, 201)
            path = f"/v1/tenants/{tenant['id']}/api-keys"
            key = self.admin("POST", path, {"name": "owner", "role": "owner"}, 201)
            model = Model(tenant["id"], key["token"])
            model.keys[key["id"]] = {"name": "owner", "status": "active"}
            self.tenants.append(model)
            self.create_agent(number, "alpha")

    # Agents

    @rule(who=WHO, name=NAMES)
    def create_agent(self, who: int, name: str) -> None:
        tenant = self.tenants[who]
        answer = self.ask(who, "POST", "/v1/agents", {"name": name, "model": "kgents:echo"})
        if tenant.agent(name):
            assert answer.status == 409, answer
            return
        assert answer.status == 201, answer
        tenant.agents[answer.body["id"]] = {"name": name, "version": 1, "instructions": ""}
        self.touched.add("agents")

    @rule(who=WHO, whose=WHO, which=WHICH, by_name=st.booleans(), name=NAMES)
    def get_agent(self, who: int, whose: int, which: int, by_name: bool, name: str) -> None:
        reference = name if by_name else self.pick(whose, "agents", which)
        answer = self.ask(who, "GET", f"/v1/agents/{reference}")
        self.check(answer, self.tenants[who].agent(reference) is not None)

    @rule(who=WHO, whose=WHO, which=WHICH, text=TEXTS)
    def update_agent(self, who: int, whose: int, which: int, text: str) -> None:
        agent_id = self.pick(whose, "agents", which)
        answer = self.ask(who, "PATCH", f"/v1/agents/{agent_id}", {"instructions": text})
        agent = self.tenants[who].agents.get(agent_id)
        self.check(answer, agent is not None)
        if agent:
            agent |= {"instructions": text, "version": answer.body["version"]}
        self.touched.add("agents")

    @rule(who=WHO, whose=WHO, which=WHICH)
    def delete_agent(self, who: int, whose: int, which: int) -> None:
        agent_id = self.pick(whose, "agents", which)
        answer = self.ask(who, "DELETE", f"/v1/agents/{agent_id}")
        tenant = self.tenants[who]
        self.check(answer, agent_id in tenant.agents)
        if tenant.agents.pop(agent_id, None):
            tenant.gone["agents"].append(agent_id)
        self.touched.add("agents")

    # Sessions

    @rule(who=WHO, whose=WHO, which=WHICH, text=TEXTS)
    def create_session(self, who: int, whose: int, which: int, text: str) -> None:
        agent_id = self.pick(whose, "agents", which)
        answer = self.ask(who, "POST", "/v1/sessions", {"agent": agent_id, "metadata": {"of": text}})
        tenant = self.tenants[who]
        self.check(answer, agent_id in tenant.agents)
        if agent_id in tenant.agents:
            tenant.sessions[answer.body["id"]] = {"agent_id": agent_id, "metadata": {"of": text}}
            tenant.messages[answer.body["id"]] = []
        self.touched.add("sessions")

    @rule(who=WHO, whose=WHO, which=WHICH)
    def delete_session(self, who: int, whose: int, which: int) -> None:
        session_id = self.pick(whose, "sessions", which)
        answer = self.ask(who, "DELETE", f"/v1/sessions/{session_id}")
        tenant = self.tenants[who]
        self.check(answer, session_id in tenant.sessions)
        if session_id in tenant.sessions:
            tenant.delete_session(session_id)
        self.touched |= {"sessions", "runs"}

    @rule(who=WHO, whose=WHO, which=WHICH)
    def read_session(self, who: int, whose: int, which: int) -> None:
        session_id = self.pick(whose, "sessions", which)
        known = session_id in self.tenants[who].sessions
        self.check(self.ask(who, "GET", f"/v1/sessions/{session_id}"), known)
        answer = self.ask(who, "GET", f"/v1/sessions/{session_id}/messages", query="limit=100")
        self.check(answer, known)
        if known:
            seen = [{name: row[name] for name in ("run_id", "role", "content")} for row in answer.body["data"]]
            assert seen == self.tenants[who].messages[session_id], (seen, self.tenants[who].messages[session_id])

    # Runs

    @rule(who=WHO, whose=WHO, which=WHICH, text=TEXTS)
    def run(self, who: int, whose: int, which: int, text: str) -> None:
        session_id = self.pick(whose, "sessions", which)
        answer = self.ask(who, "POST", f"/v1/sessions/{session_id}/runs", {"input": text})
        tenant = self.tenants[who]
        session = tenant.sessions.get(session_id)
        found = session is not None and session["agent_id"] in tenant.agents
        self.check(answer, found, may=tenant.may_run())
        if answer.status == 200 and session:
            usage = {meter: answer.body["usage"][meter] for meter in ("input_tokens", "output_tokens")}
            tenant.ran(answer.body["id"], session["agent_id"], session_id, text, usage)
        self.touched |= {"runs", "balance"}

    @rule(who=WHO, name=NAMES, text=TEXTS, key=st.sampled_from(["", "key-1", "key-2"]))
    def chat(self, who: int, name: str, text: str, key: str) -> None:
        tenant = self.tenants[who]
        body = {"model": name, "messages": [{"role": "user", "content": text}]}
        headers = {"Idempotency-Key": key} if key else {}
        answer = self.ask(who, "POST", "/v1/chat/completions", body, **headers)
        self.touched |= {"runs", "balance"}
        agent = tenant.id_of_agent(name)
        if agent is None or key not in tenant.idempotent:
            self.check(answer, agent is not None, may=tenant.may_run())
            if answer.status == 200 and agent:
                run_id, usage = answer.headers["x-run-id"], answer.body["usage"]
                counts = {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}
                tenant.ran(run_id, agent, None, text, counts)
                if key:
                    tenant.idempotent[key] = (f"{name} {text}", run_id)
        elif tenant.idempotent[key][0] == f"{name} {text}":
            assert (answer.status, answer.headers["x-run-id"]) == (200, tenant.idempotent[key][1]), answer
        else:
            assert answer.status == 422, answer

    @rule(who=WHO, name=NAMES, text=TEXTS)
    def queue(self, who: int, name: str, text: str) -> None:
        """There is no worker, so that what is queued stays there until it is cancelled."""
        tenant = self.tenants[who]
        answer = self.ask(who, "POST", "/v1/responses", {"model": name, "input": text, "background": True})
        agent = tenant.id_of_agent(name)
        self.check(answer, agent is not None, may=tenant.may_run())
        if answer.status == 200 and agent:
            tenant.was_queued(answer.headers["x-run-id"], agent)
        self.touched |= {"runs", "balance"}

    @rule(who=WHO, whose=WHO, which=WHICH)
    def read_run(self, who: int, whose: int, which: int) -> None:
        run_id = self.pick(whose, "runs", which)
        self.check(self.ask(who, "GET", f"/v1/runs/{run_id}"), run_id in self.tenants[who].runs)

    @rule(who=WHO, whose=WHO, which=WHICH)
    def cancel_run(self, who: int, whose: int, which: int) -> None:
        run_id = self.pick(whose, "runs", which)
        run = self.tenants[who].runs.get(run_id)
        answer = self.ask(who, "POST", f"/v1/runs/{run_id}/cancel")
        wanted = 404 if run is None else 409 if run["status"] == "completed" else 200
        if answer.status != wanted:
            self.differs(f"{answer} is not {wanted}")
        if run and run["status"] == "queued":
            run["status"] = "cancelled"
        self.touched |= {"runs", "balance"}

    @rule(who=WHO, whose=WHO, which=WHICH)
    def delete_a_queued_response(self, who: int, whose: int, which: int) -> None:
        queued = self.tenants[whose].queued()
        if queued:
            run_id = queued[which % len(queued)]
            answer = self.ask(who, "DELETE", f"/v1/responses/{run_id.replace('run_', 'resp_')}")
            assert answer.status == (409 if who == whose else 404), answer
            self.touched.add("runs")

    # Keys

    @rule(who=WHO, name=NAMES)
    def create_key(self, who: int, name: str) -> None:
        answer = self.ask(who, "POST", "/v1/api-keys", {"name": name, "role": "viewer"})
        assert answer.status == 201, answer
        self.issued(who, answer.body)

    @rule(who=WHO, whose=WHO, which=WHICH, overlap=st.sampled_from([0, 86_400]))
    def rotate_key(self, who: int, whose: int, which: int, overlap: int) -> None:
        key_id = self.pick(whose, "keys", which)
        tenant = self.tenants[who]
        key = tenant.keys.get(key_id)
        if key and key["name"] == "owner":
            return
        answer = self.ask(who, "POST", f"/v1/api-keys/{key_id}/rotate", {"overlap_seconds": overlap})
        self.touched.add("keys")
        if key is None:
            assert answer.status == 404, answer
        elif key["status"] != "active" or key.get("rotated"):
            assert answer.status == 409, answer
        else:
            assert answer.status == 201, answer
            key |= {"rotated": True, "status": "active" if overlap else "expired"}
            self.issued(who, answer.body)

    @rule(who=WHO, whose=WHO, which=WHICH)
    def revoke_key(self, who: int, whose: int, which: int) -> None:
        key_id = self.pick(whose, "keys", which)
        key = self.tenants[who].keys.get(key_id)
        if key and key["name"] == "owner":
            return
        self.check(self.ask(who, "DELETE", f"/v1/api-keys/{key_id}"), key is not None)
        if key:
            key["status"] = "revoked"
        self.touched.add("keys")

    @rule(who=WHO, which=WHICH)
    def use_key(self, who: int, which: int) -> None:
        tenant = self.tenants[who]
        if tenant.tokens:
            key_id = list(tenant.tokens)[which % len(tenant.tokens)]
            answer = self.api.ask("GET", "/v1/agents", key=tenant.tokens[key_id], query="limit=100")
            assert answer.status == (200 if tenant.keys[key_id]["status"] == "active" else 401), answer
            if answer.status == 200:
                assert {row["id"] for row in answer.body["data"]} == set(tenant.agents)

    # Quotas

    @rule(who=WHO, more=st.sampled_from([None, 0, 1, 3]))
    def set_quota(self, who: int, more: int | None) -> None:
        tenant = self.tenants[who]
        tenant.limit = None if more is None else tenant.used["runs"] + more
        self.admin("PATCH", f"/v1/tenants/{tenant.id}", {"quotas": {"runs": tenant.limit}}, 200)
        self.touched.add("balance")

    # What everybody sees

    @invariant()
    def everybody_sees_their_own(self) -> None:
        type(self).steps += 1
        for aspect in sorted(self.touched):
            for who in range(len(self.tenants)):
                self.see(who, aspect)
        self.touched.clear()

    def teardown(self) -> None:
        for who in range(len(self.tenants)):
            for aspect in ("agents", "sessions", "runs", "keys", "balance", "usage"):
                self.see(who, aspect)

    def see(self, who: int, aspect: str) -> None:
        """Compare an aspect with the model."""
        seen, expected = getattr(self, f"_{aspect}")(who)
        if seen != expected:
            self.differs(f"tenant {who} sees of its {aspect}:\n{seen}\nand should see:\n{expected}")

    def differs(self, what: str) -> None:
        """End the sequence: something is not as the model says."""
        self.differences.append(what)
        raise AssertionError(what)

    def _agents(self, who: int) -> tuple[Any, Any]:
        rows = self.listed(who, "/v1/agents", ("name", "version", "instructions"))
        return rows, self.tenants[who].agents

    def _sessions(self, who: int) -> tuple[Any, Any]:
        return self.listed(who, "/v1/sessions", ("agent_id", "metadata")), self.tenants[who].sessions

    def _runs(self, who: int) -> tuple[Any, Any]:
        seen = {}
        for run_id, row in self.listed(
            who, "/v1/runs", ("agent_id", "session_id", "status", "output", "usage")
        ).items():
            output, usage = row.pop("output"), row.pop("usage")
            counts = {meter: usage[meter] for meter in ("input_tokens", "output_tokens")}
            seen[run_id] = {**row, "text": output and output["text"], **counts}
        return list(seen.items()), list(self.tenants[who].runs.items())[::-1]

    def _keys(self, who: int) -> tuple[Any, Any]:
        wanted = {
            key_id: {name: key[name] for name in ("name", "status")} for key_id, key in self.tenants[who].keys.items()
        }
        return self.listed(who, "/v1/api-keys", ("name", "status")), wanted

    def _balance(self, who: int) -> tuple[Any, Any]:
        tenant = self.tenants[who]
        meters = {row["meter"]: row for row in self.ask(who, "GET", "/v1/usage/balance").body["meters"]}
        seen = {meter: (meters[meter]["used"], meters[meter]["reserved"] > 0) for meter in tenant.used}
        queued = len(tenant.queued())
        wanted = {meter: (quantity, queued > 0) for meter, quantity in tenant.used.items()}
        reserved, limit = meters["runs"]["reserved"], meters["runs"]["limit"]
        return (seen, reserved, limit), (wanted, queued, tenant.limit)

    def _usage(self, who: int) -> tuple[Any, Any]:
        tenant = self.tenants[who]
        sums = dict.fromkeys(tenant.used, 0)
        for row in self.ask(who, "GET", "/v1/usage").body["data"]:
            sums[row["meter"]] = sums.get(row["meter"], 0) + row["quantity"]
        events = self.listed(who, "/v1/usage/events", ("run_id",))
        return (sums, {row["run_id"] for row in events.values()}), (tenant.used, tenant.metered())

    # Asking

    def ask(self, who: int, method: str, path: str, body: Any = None, **options: str) -> Answer:
        """A tenant's request, with its owner's key."""
        return self.api.ask(method, path, body, key=self.tenants[who].owner, **options)

    def admin(self, method: str, path: str, body: Any, status: int) -> Row:
        """A request of the platform's administrator, which succeeds."""
        answer = self.api.ask(method, path, body, key=self.api.admin_key)
        assert answer.status == status, answer
        found: Row = answer.body
        return found

    def check(self, answer: Answer, found: bool, *, may: bool = True) -> None:
        """Whether a request found its object, and did what it asked for unless the quota is used up."""
        wanted = {404} if not found else {200, 201} if may else {402}
        if answer.status not in wanted:
            self.differs(f"{answer} is not one of {wanted}")

    def pick(self, whose: int, kind: str, which: int) -> str:
        """The id of some object of a tenant, deleted or not; one that nobody has where there is none."""
        ids = self.tenants[whose].ids(kind)
        return ids[which % len(ids)] if ids else f"{UNKNOWN[kind]}_{'0' * 26}"

    def issued(self, who: int, key: Row) -> None:
        """A key was made."""
        self.tenants[who].keys[key["id"]] = {"name": key["name"], "status": "active"}
        self.tenants[who].tokens[key["id"]] = key["token"]
        self.touched.add("keys")

    def listed(self, who: int, path: str, names: tuple[str, ...]) -> dict[str, Row]:
        """A whole list, by id: page after page."""
        return {row["id"]: {name: row[name] for name in names} for row in self._pages(who, path)}

    def _pages(self, who: int, path: str) -> Iterator[Row]:
        after = ""
        while True:
            answer = self.ask(who, "GET", path, query=f"limit=7{after}")
            assert answer.status == 200, answer
            yield from answer.body["data"]
            if not answer.body["has_more"]:
                return
            after = f"&after={answer.body['last_id']}"
