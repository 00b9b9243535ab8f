"""Drives canaries through a kgents: every way that works, and every way to fail."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any

import httpx2
import nats

from tests.faults.canaries import Canaries
from tests.faults.places import Place, Record, columns, command_lines, pages
from tests.faults.quoting import PROVIDER_FAILURES
from tests.faults.supervisor import frozen, kill
from tests.faults.systems import System
from tests.support.waiting import wait_until

ENDED = ("completed", "failed", "cancelled")


class Driver:
    """One tenant's use of a kgents, and its administrators'. Whatever is answered is kept in `record`."""

    def __init__(self, system: System, canaries: Canaries, record: Record, tools_url: str) -> None:
        self.system = system
        self.canaries = canaries
        self.record = record
        self._tools_url = tools_url
        self._http = httpx2.Client(base_url=system.up.url, timeout=60, trust_env=False)
        self.admin_key = canaries.key("admin key", str(system.up.facts["admin_key"]))
        canaries.key("api key", system.up.key)
        self.tenant_id = self.ask("POST", "/v1/tenants", {"name": "canary"}, key=self.admin_key).json()["id"]
        path = f"/v1/tenants/{self.tenant_id}/api-keys"
        made = self.ask("POST", path, {"name": "owner", "role": "owner"}, key=self.admin_key).json()
        self.key = canaries.key("tenant key", made["token"])

    def close(self) -> None:
        """End the connection."""
        self._http.close()

    def ask(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, **headers: str
    ) -> httpx2.Response:
        """Send a request with the tenant's key, or another; bytes go as they are."""
        given = {"Authorization": f"Bearer {key or self.key}", **headers}
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if content is not None:
            given["Content-Type"] = "application/json"
        response = self._http.request(method, path, content=content, headers=given)
        self.record.answers.append((response.request, response))
        return response

    def text(self, name: str) -> str:
        """A new text."""
        return self.canaries.text(name)

    def agent(self, name: str, model: str, **fields: Any) -> None:
        """A new agent."""
        body = {
            "name": name,
            "model": model,
            "instructions": self.text(f"{name}: instructions"),
            "description": self.text(f"{name}: description"),
            "limits": {"timeout_seconds": 2, "max_steps": 4},
            **fields,
        }
        made = self.ask("POST", "/v1/agents", body, **{"Idempotency-Key": f"agent-{name}"})
        assert made.status_code == 201, made.text

    def session(self, agent: str) -> str:
        """A new session with metadata."""
        body = {"agent": agent, "metadata": {"who": self.text("session metadata")}}
        return str(self.ask("POST", "/v1/sessions", body).json()["id"])

    def run(self, agent: str, text: str, mode: str = "wait", session: str = "") -> dict[str, Any]:
        """A run in a session, which is a new one unless it is given."""
        path = f"/v1/sessions/{session or self.session(agent)}/runs"
        answer = self.ask("POST", path, {"input": text, "mode": mode})
        found: dict[str, Any] = answer.json() if mode != "stream" and answer.is_success else {}
        return found

    def ended(self, run_id: str) -> dict[str, Any]:
        """A run at its end."""

        def finished() -> Any:
            answer = self.ask("GET", f"/v1/runs/{run_id}")
            return answer.is_success and answer.json()["status"] in ENDED and answer.json()

        run: dict[str, Any] = wait_until(finished, seconds=60, what=f"{run_id} has ended")
        return run

    def chat(self, agent: str, text: str, **fields: Any) -> httpx2.Response:
        """A chat completion."""
        messages = [
            {"role": "system", "content": self.text("chat: system")},
            {"role": "user", "content": text},
        ]
        who = {"user": self.text("chat: user")}
        return self.ask("POST", "/v1/chat/completions", {"model": agent, "messages": messages, **who, **fields})

    def at_once(self, *works: Callable[[], object]) -> None:
        """Do things at the same time."""
        with ThreadPoolExecutor(8) as pool:
            for future in [pool.submit(work) for work in works]:
                future.result()

    def every_way(self, agent: str, what: str) -> None:
        """Ask an agent in each way that there is."""
        self.chat(agent, self.text(f"{what}: chat"))
        self.chat(agent, self.text(f"{what}: chat, streamed"), stream=True)
        for fields in ({}, {"stream": True}):
            body = {"model": agent, "input": self.text(f"{what}: response"), "metadata": {"m": self.text("metadata")}}
            self.ask("POST", "/v1/responses", body | fields, **{"Idempotency-Key": f"{what}-{bool(fields)}"})
        self.run(agent, self.text(f"{what}: stream"), "stream")
        made = self.run(agent, self.text(f"{what}: background"), "background")
        self.ended(made["id"])
        self.ask("GET", f"/v1/runs/{made['id']}/events")

    def keys(self) -> None:
        """Keys of every state, right and wrong, where they belong and where they do not."""
        made = {}
        for name in ("revoked", "rotated", "expiring"):
            answer = self.ask("POST", "/v1/api-keys", {"name": name, "role": "viewer"}, **{"Idempotency-Key": name})
            made[name] = answer.json()
            self.canaries.key(f"{name} key", made[name]["token"])
            self.ask("GET", "/v1/agents", key=made[name]["token"])
            # A replay shows no token.
            again = self.ask("POST", "/v1/api-keys", {"name": name, "role": "viewer"}, **{"Idempotency-Key": name})
            self.record.places.append(Place("replay of a key", again.content, ("secret",)))
        self.ask("DELETE", f"/v1/api-keys/{made['revoked']['id']}")
        rotated = self.ask("POST", f"/v1/api-keys/{made['rotated']['id']}/rotate", {"overlap_seconds": 0}).json()
        self.canaries.key("successor key", rotated["token"])
        owner = self.key.rpartition("_")[0]
        wrong = [
            self.canaries.key("key with a wrong secret", f"{owner}_{'W' * 8}{self.key.rpartition('_')[2][:-9]}x"),
            self.canaries.key("key of nobody", f"kg_{'0' * 16}_{self.canaries.secret('nobody', 'N0b0dy' * 7)}"),
            self.canaries.secret("no key at all", "sk-" + "NoKgentsKey" * 4),
        ]
        for token in [self.key, made["revoked"]["token"], made["rotated"]["token"], rotated["token"], *wrong]:
            self.ask("GET", "/v1/agents", key=token)
            self.ask("GET", "/v1/audit-log", key=token)
            for header, value in (
                ("Authorization", f"Basic {base64.b64encode(f'u:{token}'.encode()).decode()}"),
                ("Authorization", f"Bearer  {token}"),
                ("Authorization", token),
                ("X-Api-Key", token),
                ("X-Request-Id", token),
                ("Cookie", f"key={token}"),
                ("traceparent", token),
                ("tracestate", f"key={token}"),
            ):
                headers = {"Authorization": "Bearer none", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01", header: value}
                response = self._http.get("/v1/agents", headers=headers)
                self.record.answers.append((response.request, response))
            self.ask("GET", f"/v1/agents?api_key={token}")
            self.ask("GET", f"/console?key={token}")
            self.ask("GET", f"/no-such-page?key={token}")

    def conversations(self) -> None:
        """Answers of the echo model and of providers; then every way that a provider fails."""
        for name, model in (("echo", "kgents:echo"), ("good", "quoting:answer")):
            self.agent(name, model)
            self.every_way(name, name)
        self.at_once(*(partial(self._failing, f"quoting:{scene}") for scene in PROVIDER_FAILURES))
        self.at_once(*(partial(self._failing, f"{provider}:500") for provider in ("claude", "gemini", "dead")))

    def _failing(self, model: str) -> None:
        name = model.replace(":", "-")
        self.agent(name, model)
        self.chat(name, self.text(f"{model}: chat"))
        self.chat(name, self.text(f"{model}: chat, streamed"), stream=True)
        self.ended(self.run(name, self.text(f"{model}: background"), "background")["id"])

    def tools(self) -> None:
        """Tools that work and that fail, with credentials in their arguments, URLs and headers."""
        builtin = [{"type": "builtin", "name": name} for name in ("calculator", "clock", "http_get")]
        self.agent("tools", "kgents:echo", tools=builtin)
        host = self._tools_url.removeprefix("http://")
        for arguments in (
            {"url": f"{self._tools_url}/page?key={self.text('http_get: query')[:34]}"},
            {"url": f"{self._tools_url}/fail?key={self.text('http_get: failing')[:34]}"},
            {"url": f"http://user:{self.text('http_get: password')[:34]}@{host}/page"},
            {"url": f"http://{self.text('http_get: host')[:34]}.example/"},
            {"no such argument": self.text("http_get: wrong argument")},
        ):
            self.chat("tools", f"/call http_get {json.dumps(arguments)}")
        for expression in (f"1 + {self.text('calculator')}", "1/0"):
            self.run("tools", f"/call calculator {json.dumps({'expression': expression})}", "background")
        for name, url in (("quoting", f"{self._tools_url}/mcp"), ("away", "http://127.0.0.1:9/mcp")):
            token = self.canaries.secret(f"MCP {name}: URL", kind="tool credential")
            header = self.canaries.secret(f"MCP {name}: header", kind="tool header")
            tool = {
                "type": "mcp",
                "name": name,
                "url": f"{url}?{httpx2.QueryParams({'token': token})}",
                "headers": {"Authorization": f"Bearer {header}", "X-Secret": header},
            }
            self.agent(f"mcp-{name}", "kgents:echo", tools=[tool])
            self.chat(f"mcp-{name}", self.text(f"MCP {name}: chat"))
            self.ended(self.run(f"mcp-{name}", self.text(f"MCP {name}: run"), "background")["id"])
            self.ask("PATCH", f"/v1/agents/mcp-{name}", {"description": self.text("new description")})
            self.ask("GET", f"/v1/agents/mcp-{name}/versions")

    def refusals(self) -> None:
        """Requests that are refused, each for another reason, with texts in them; not as the names of agents or fields,
        which are quoted back to who gave them.
        """
        text = self.text("a refused request")
        for body in (
            f'{{"model": "echo", "messages": "{text[:34]}"'.encode(),
            {"model": "none", "messages": [{"role": "user", "content": text}]},
            {"model": "echo", "messages": text},
            {"model": "echo", "messages": [{"role": text, "content": text}]},
            {"model": "echo", "messages": [{"role": "user", "content": text}], "temperature": text},
            {"model": "echo", "messages": [{"role": "user", "content": text}], "no such field": text},
            {"model": "echo", "messages": [{"role": "user", "content": {"a": text}}]},
            {"model": "echo", "messages": [{"role": "user", "content": text * 20_000}]},
            {"model": "echo", "messages": [{"role": "user", "content": text}], "response_format": {"type": text}},
            ("[" * 100 + f'"{text[:34]}"').encode(),
        ):
            self.ask("POST", "/v1/chat/completions", body)
        for path, body in (
            ("/v1/agents", {"name": "x", "model": "kgents:echo", "instructions": [text]}),
            ("/v1/agents", {"name": "x", "model": "kgents:echo", "output_schema": {"type": 5, "description": text}}),
            ("/v1/agents", {"name": "echo", "model": "kgents:echo", "instructions": text}),
            ("/v1/sessions", {"agent": "echo", "metadata": {"m": {"nested": text}}}),
            ("/v1/sessions", {"agent": "echo", "metadata": text}),
            ("/v1/responses", {"model": "echo", "input": text, "previous_response_id": "resp_none"}),
            (
                "/v1/responses",
                {"model": "echo", "input": [{"type": "message", "role": "user", "content": 1, "x": text}]},
            ),
        ):
            self.ask("POST", path, body)
        for other in ("one", "another"):  # the same key for different requests
            body = {"model": "echo", "input": f"{other} {text}"}
            self.ask("POST", "/v1/responses", body, **{"Idempotency-Key": "reused"})
        self.ask("PUT", "/v1/chat/completions", {"text": text})
        session = self.session("echo")
        self.run("echo", "/sleep 3 a b", "background", session)
        self.run("echo", self.text("a busy session"), "background", session)
        self.ask("PATCH", f"/v1/tenants/{self.tenant_id}", {"quotas": {"runs": 0}}, key=self.admin_key)
        self.chat("echo", self.text("over the quota"))
        self.ask("PATCH", f"/v1/tenants/{self.tenant_id}", {"quotas": {"runs": None}}, key=self.admin_key)
        limited = {"name": "limited", "requests_per_minute": 1}
        path = f"/v1/tenants/{self.ask('POST', '/v1/tenants', limited, key=self.admin_key).json()['id']}/api-keys"
        made = self.ask("POST", path, {"name": "owner", "role": "owner"}, key=self.admin_key).json()
        key = self.canaries.key("key of a limited tenant", made["token"])
        for _ in range(3):
            self.ask("POST", "/v1/agents", {"instructions": self.text("over the rate limit")}, key=key)
        for planted in ("/bug in the run", "/bug in the route"):
            self.chat("echo", f"{planted} {self.text('a bug of ours')}")
            self.run("echo", f"{planted} {self.text('a bug of ours')}", "background")

    def interrupted(self) -> None:
        """Runs that are cancelled, whose worker is killed, and whose texts are erased."""
        made = self.run("echo", f"/sleep 30 {self.text('cancelled')}", "background")
        self.ask("POST", f"/v1/runs/{made['id']}/cancel")
        self.ended(made["id"])
        made = self.run("echo", f"/sleep 0.5 {self.text('worker killed')}", "background")
        wait_until(lambda: self.ask("GET", f"/v1/runs/{made['id']}").json()["status"] == "running", what="it runs")
        kill(self.system.up.pid("worker"))
        self.ended(made["id"])
        said = {"model": "echo", "input": self.text("a response that is deleted")}
        response = self.ask("POST", "/v1/responses", said).json()["id"]
        self.ask("DELETE", f"/v1/responses/{response}")
        kill(self.system.up.pid("meter"))
        session = self.session("echo")
        self.run("echo", self.text("a session that is deleted"), session=session)
        self.ask("GET", f"/v1/sessions/{session}/messages")
        self.ask("DELETE", f"/v1/sessions/{session}")

    def without_bus(self) -> None:
        """Runs while the bus is frozen; meanwhile the outbox is looked at."""
        with frozen(self.system.up, "nats"):
            self.chat("echo", self.text("bus away: chat"))
            self.run("echo", self.text("bus away: stream"), "stream")
            made = self.run("echo", self.text("bus away: background"), "background")
            self.record.places += columns(self.system)
            self.record.places += pages(self.system)
            self.ask("GET", "/health/saas")
        self.ended(made["id"])

    def without_database(self) -> None:
        """Requests while the database is away, or locked."""

        agent = {"name": "x", "model": "kgents:echo", "instructions": self.text("database away: agent")}
        with _database_away(self.system):
            self.at_once(
                lambda: self.chat("echo", self.text("database away: chat")),
                lambda: self.chat("good", self.text("database away: provider"), stream=True),
                lambda: self.run("echo", self.text("database away: run"), session="ses_none"),
                lambda: self.ask("POST", "/v1/agents", agent),
                lambda: self.ask("GET", "/health/saas"),
            )
            self.record.places += pages(self.system)
        wait_until(lambda: self.chat("echo", "back").is_success, seconds=60, what="the database is back")

    def look(self) -> None:
        """Read what everybody and what the tenant may read."""
        for path in ("/console", "/console/console.js", "/docs", "/openapi.json", "/health", "/health/saas", "/readyz"):
            self.ask("GET", path)
        for page in ("agents", "sessions", "runs", "api-keys", "usage/events", "usage", "usage/balance", "audit-log"):
            self.ask("GET", f"/v1/{page}")
        self.ask("GET", "/v1/audit-log", key=self.admin_key)
        self.record.places += [*pages(self.system), *command_lines(self.system)]


@contextmanager
def _database_away(system: System) -> Iterator[None]:
    if system.postgres is not None:
        system.postgres.stop()
        try:
            yield
        finally:
            system.postgres.start()
        return
    with closing(sqlite3.connect(system.up.data / "kgents.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@contextmanager
def overheard(system: System, heard: list[tuple[str, bytes]]) -> Iterator[None]:
    """Keep everything that goes over the bus: subjects of ours, and requests to JetStream."""
    endpoint = json.loads((system.up.data / "nats/endpoint.json").read_text())
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def wait(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(10)

    async def keep(message: Any) -> None:
        heard.append((message.subject, str(message.headers or {}).encode() + message.data))

    async def connect() -> Any:
        connection = await nats.connect(
            f"nats://127.0.0.1:{endpoint['port']}",
            user=endpoint["user"],
            password=endpoint["password"],
            max_reconnect_attempts=-1,
        )
        for subject in ("kgents.>", "$JS.API.>"):
            await connection.subscribe(subject, cb=keep)
        await connection.flush()
        return connection

    with ExitStack() as stack:
        stack.callback(loop.close)
        stack.callback(thread.join)
        stack.callback(loop.call_soon_threadsafe, loop.stop)
        connection = wait(connect())
        stack.callback(lambda: wait(connection.close()))
        yield


Part = Callable[[Driver], None]
PARTS: list[Part] = [
    Driver.keys,
    Driver.conversations,
    Driver.tools,
    Driver.refusals,
    Driver.interrupted,
    Driver.without_bus,
    Driver.without_database,
    Driver.look,
]
