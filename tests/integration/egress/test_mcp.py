"""MCP servers as tools: a real one on loopback, allowed and not, and servers that misbehave."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from pydantic import ValidationError

from kgents.agents.tools import mcp as mcp_tools
from kgents.agents.tools.toolbox import MAX_OPENING, Toolbox
from kgents.clock import ManualClock
from kgents.config import Settings
from kgents.telemetry import traces
from tests.support.canary import plain, redirect, serve
from tests.support.ports import free_port
from tests.support.waiting import eventually

ALLOWED = Settings(egress_allow=["127.0.0.0/8"])
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def weather_server(seen: list[str]) -> MCPServer:
    server = MCPServer("weather")

    @server.tool()
    def forecast(city: str, days: int = 1) -> str:
        """Tells the weather in a city."""
        return f"Sunny in {city} for {days} days"

    @server.tool()
    def failing() -> str:
        raise ValueError("the sky fell")

    @server.tool()
    async def slow() -> str:
        seen.append("slow")
        await asyncio.sleep(60)
        return "late"

    @server.tool()
    def numbers() -> dict[str, int]:
        return {"one": 1}

    @server.tool()
    def traced(context: Context) -> dict[str, Any]:
        meta = context.request_context.meta or {}
        return {name: meta.get(name) for name in ("traceparent", "tracestate")}

    @server.tool()
    def long() -> str:
        return "x" * 200_000

    return server


@pytest.fixture
def seen() -> list[str]:
    return []


@pytest.fixture
def heads() -> list[dict[bytes, bytes]]:
    """The headers of each request that the server was sent."""
    return []


@pytest.fixture
async def url(seen: list[str], heads: list[dict[bytes, bytes]]) -> AsyncIterator[str]:
    port = free_port()
    served = weather_server(seen).streamable_http_app()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            heads.append(dict(scope["headers"]))
        await served(scope, receive, send)

    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", timeout_graceful_shutdown=1)
    )
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    yield f"http://127.0.0.1:{port}/mcp"
    server.should_exit = True
    await task


def opened(url: str, settings: Settings = ALLOWED, *, more: Sequence[dict[str, Any]] = (), **extra: Any) -> Any:
    tools = [{"type": "builtin", "name": "clock"}, {"type": "mcp", "name": "weather", "url": url, **extra}, *more]
    return Toolbox.open(tools, tenant_id="ten_1", settings=settings, clock=ManualClock())


def names(box: Toolbox) -> list[str]:
    return [definition.name for definition in box.definitions]


async def test_lists_the_servers_tools_under_its_name(url: str) -> None:
    async with opened(url) as box:
        assert names(box) == [
            "clock",
            *(f"weather_{name}" for name in ("forecast", "failing", "slow", "numbers", "traced", "long")),
        ]
        forecast = box.definitions[1]
        assert forecast.description == "Tells the weather in a city."
        assert forecast.parameters_json_schema["required"] == ["city"]
        assert box.kind_of("weather_forecast") == "mcp"


async def test_calls_a_tool(url: str) -> None:
    async with opened(url) as box:
        assert await box.call("weather_forecast", {"city": "Bern", "days": 2}) == "Sunny in Bern for 2 days"


async def test_a_structured_result_is_text(url: str) -> None:
    async with opened(url) as box:
        assert json.loads(await box.call("weather_numbers", {})) == {"one": 1}


async def test_the_server_goes_on_with_the_trace(url: str, heads: list[dict[bytes, bytes]]) -> None:
    with traces.server_span("POST", TRACEPARENT, "vendor=1"):
        async with opened(url) as box:
            told = json.loads(await box.call("weather_traced", {}))
    assert told == {"traceparent": TRACEPARENT, "tracestate": "vendor=1"}
    sent = {(head.get(b"traceparent"), head.get(b"tracestate")) for head in heads}
    assert sent == {(TRACEPARENT.encode(), b"vendor=1")}


async def test_a_long_result_is_cut_off(url: str) -> None:
    async with opened(url) as box:
        answer = await box.call("weather_long", {})
    assert answer == "x" * mcp_tools.MAX_RESULT + f"\n[cut off after {mcp_tools.MAX_RESULT} characters]"


async def test_arguments_are_checked_before_the_server_is_asked(url: str) -> None:
    async with opened(url) as box:
        answer = await box.call("weather_forecast", {"city": 3})
        assert answer == "Error: the arguments do not match the tool's schema: at $.city: it must be of type string."


async def test_a_tool_that_fails_is_told_to_the_model(url: str) -> None:
    async with opened(url) as box:
        assert (await box.call("weather_failing", {})).startswith("Error: ")
        assert await box.call("weather_forecast", {"city": "Bern"}) == "Sunny in Bern for 1 days"


async def test_a_tool_that_is_slow_is_left(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_tools, "CALL_SECONDS", 0.3)
    async with opened(url) as box:
        assert await box.call("weather_slow", {}) == "Error: The tool did not answer within 0.3 s."
        assert await box.call("weather_forecast", {"city": "Bern"}) == "Sunny in Bern for 1 days"


async def test_a_run_that_is_cancelled_closes_the_connection(url: str, seen: list[str]) -> None:
    async def run() -> None:
        async with opened(url) as box:
            await box.call("weather_slow", {})

    task = asyncio.create_task(run())
    await eventually(lambda: seen)
    started = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < mcp_tools.CLOSE_SECONDS + 1
    assert not [one for one in asyncio.all_tasks() if one.get_name() == "mcp weather"]


async def test_is_refused_where_it_is_not_allowed(url: str) -> None:
    async with opened(url, Settings()) as box:
        assert names(box) == ["clock", "weather_unavailable"]
        assert "KGENTS_EGRESS_ALLOW" in await box.call("weather_unavailable", {})
        assert (await box.call("weather_forecast", {"city": "Bern"})).startswith("Error: there is no tool")


async def test_a_server_inside_is_not_even_connected_to() -> None:
    async with serve() as canary, opened(canary.url + "mcp", Settings()):
        pass
    assert canary.connections == 0


async def test_a_redirect_does_not_lead_inside() -> None:
    async with (
        serve() as canary,
        serve(lambda head: redirect(canary.url, "307 Temporary Redirect"), "127.0.0.9") as out,
        opened(out.url, Settings(egress_allow=["127.0.0.9"])) as box,
    ):
        assert names(box) == ["clock", "weather_unavailable"]
    assert out.connections >= 1
    assert canary.connections == 0


async def test_sends_the_configured_headers_to_the_server_only() -> None:
    async with (
        serve() as elsewhere,
        serve(lambda head: redirect(elsewhere.url, "307 Temporary Redirect")) as server,
        opened(server.url, headers={"authorization": "Bearer token"}),
    ):
        pass
    assert "authorization: Bearer token" in server.heads[0]
    assert elsewhere.connections == 0


@pytest.mark.parametrize(
    "answer",
    [
        plain(b"<html>", headers="content-type: text/html"),
        plain(b"not json", headers="content-type: application/json"),
        plain(b"[1, 2]", headers="content-type: application/json"),
        plain(b'{"jsonrpc": "2.0", "id": 0, "result": {"tools": 3}}', headers="content-type: application/json"),
        plain(b"data: rubbish\n\n", headers="content-type: text/event-stream"),
        plain(b"x" * 5_000_000, headers="content-type: application/json"),
        plain(b"{}", status="500 Internal Server Error", headers="content-type: application/json"),
        plain(b"", status="401 Unauthorized"),
        plain(b"", status="202 Accepted"),
        b"\x00\x01\x02",
        b"",
    ],
)
async def test_a_server_that_answers_badly_is_unavailable(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_tools, "OPEN_SECONDS", 1.0)
    async with serve(lambda head: answer) as server, opened(server.url) as box:
        assert names(box) == ["clock", "weather_unavailable"]
        assert (await box.call("weather_unavailable", {})).startswith("Error: the tools of weather can't be used now.")


async def test_a_server_that_hangs_is_unavailable_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_tools, "OPEN_SECONDS", 0.3)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    started = time.monotonic()
    async with opened(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as box:
        assert names(box) == ["clock", "weather_unavailable"]
    assert time.monotonic() - started < 3
    server.close()


async def test_a_connection_that_broke_is_made_again(url: str) -> None:
    async with opened(url) as box:
        (task,) = [one for one in asyncio.all_tasks() if one.get_name() == "mcp weather"]
        task.cancel()
        await asyncio.wait([task])
        assert await box.call("weather_forecast", {"city": "Bern"}) == "Sunny in Bern for 1 days"


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with opened(f"http://127.0.0.1:{free_port()}/mcp") as box:
        answer = await box.call("weather_unavailable", {})
    assert "it can't be reached (ConnectError)" in answer


class Scripted:
    """An MCP server of the handshake's era whose tools are whatever a test says, on one page or on `pages` without end.

    `at_once` is how many clients at most were between their greeting and their list of tools. It greets none before
    there are `together`.
    """

    def __init__(
        self,
        tools: list[dict[str, Any]],
        result: dict[str, Any] | None = None,
        *,
        pages: bool = False,
        together: int = 1,
    ) -> None:
        self.at_once = 0
        self._open = 0
        self._together = together
        self._results = {
            "initialize": {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "scripted", "version": "1"},
            },
            "tools/list": {"tools": tools, **({"nextCursor": "more"} if pages else {})},
            "tools/call": result or {"content": []},
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        message = await receive()
        request = json.loads(message["body"] or b"{}")
        body: dict[str, Any] = {"jsonrpc": "2.0", "id": request.get("id")}
        if request.get("method") == "initialize":
            self._open += 1
            self.at_once = max(self.at_once, self._open)
            await eventually(lambda: self.at_once >= self._together)
        if request.get("method") == "tools/list":
            self._open -= 1
        if request.get("method") in self._results:
            body["result"] = self._results[request["method"]]
        else:
            body["error"] = {"code": -32601, "message": "no such method"}
        status = 200 if "id" in request else 202
        await send(
            {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]}
        )
        await send({"type": "http.response.body", "body": json.dumps(body).encode() if status == 200 else b""})


async def with_scripted(server: Scripted, use: Any, *, servers: int = 1) -> None:
    """Have `use` called with the toolbox of an agent that has `server` under one or several names."""
    port = free_port()
    running = uvicorn.Server(uvicorn.Config(server, host="127.0.0.1", port=port, log_level="error", lifespan="off"))
    task = asyncio.create_task(running.serve())
    await eventually(lambda: running.started)
    url = f"http://127.0.0.1:{port}/"
    more = [{"type": "mcp", "name": f"more{number}", "url": url} for number in range(servers - 1)]
    try:
        async with opened(url, more=more) as box:
            await use(box)
    finally:
        running.should_exit = True
        await task


async def test_strange_names_and_schemas_are_made_to_fit() -> None:
    tools = [
        {"name": "plain", "inputSchema": {"type": "object"}},
        {"name": "with space/slash", "inputSchema": {"type": "object"}},
        {"name": "x" * 200, "inputSchema": {"type": "object"}},
        {"name": "remote-ref", "inputSchema": {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1/"}}}},
        {"name": "plain", "inputSchema": {"type": "object"}},
    ]

    async def use(box: Toolbox) -> None:
        assert len(names(box)) == 1 + 4
        assert all(len(name) <= 64 and name.replace("_", "").replace("-", "").isalnum() for name in names(box))
        assert box.definitions[4].parameters_json_schema == {"type": "object"}

    await with_scripted(Scripted(tools), use)


async def test_the_schemas_of_a_server_with_too_many_patterns_are_left_out() -> None:
    schema = {"type": "object", "properties": {"a": {"pattern": "^a"}}}

    async def use(box: Toolbox) -> None:
        schemas = [each.parameters_json_schema for each in box.definitions if each.name.startswith("weather_t")]
        assert schemas == [schema] * 100 + [{"type": "object"}] * 2

    await with_scripted(Scripted([{"name": f"t{n}", "inputSchema": schema} for n in range(102)]), use)


async def test_a_result_is_not_checked_against_the_servers_own_schema() -> None:
    """A server could make that check take hours."""
    pairs = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(60)}
    trap = {"type": "object", "$ref": "#/$defs/a0", "$defs": {**pairs, "a60": {}}}
    tools = [{"name": "trap", "inputSchema": {"type": "object"}, "outputSchema": trap}]
    result = {"content": [{"type": "text", "text": "done"}], "structuredContent": {"a": 1}}

    async def use(box: Toolbox) -> None:
        assert await asyncio.wait_for(box.call("weather_trap", {}), 5) == "done"

    await with_scripted(Scripted(tools, result), use)


async def test_images_and_links_are_named() -> None:
    content = [
        {"type": "image", "data": "aGk=", "mimeType": "image/png"},
        {"type": "resource_link", "uri": "https://example.com/a", "name": "a"},
        {"type": "resource", "resource": {"uri": "https://example.com/b", "text": "inside"}},
    ]

    async def use(box: Toolbox) -> None:
        assert await box.call("weather_show", {}) == "[image]\nhttps://example.com/a\ninside"

    await with_scripted(Scripted([{"name": "show", "inputSchema": {"type": "object"}}], {"content": content}), use)


def tool(**extra: Any) -> dict[str, Any]:
    return {"name": "show", "inputSchema": {"type": "object"}, **extra}


async def unavailable(box: Toolbox) -> None:
    assert names(box) == ["clock", "weather_unavailable"]
    assert "The server sent too much" in await box.call("weather_unavailable", {})


@pytest.mark.parametrize(
    "listed",
    [
        tool(inputSchema={"type": "object", "enum": [[]] * 100_000}),
        tool(inputSchema={"type": "object", "enum": [1] * 100_000}),
        tool(title="x" * 600_000),
    ],
    ids=["lists", "numbers", "text"],
)
async def test_a_list_of_tools_is_bounded_before_it_is_parsed(listed: dict[str, Any]) -> None:
    await with_scripted(Scripted([listed]), unavailable)


async def test_what_is_wrong_with_a_list_of_tools_is_not_kept() -> None:
    """It is an error for each tool, some hundred times as large as the list."""

    async def use(box: Toolbox) -> None:
        assert not [True for kept in gc.get_objects() if type(kept) is ValidationError]
        assert "its list of tools is not as MCP has it" in await box.call("weather_unavailable", {})

    gc.collect()
    gc.disable()
    try:
        await with_scripted(Scripted([{}] * 1000), use)
    finally:
        gc.enable()


async def test_the_pages_of_a_list_are_bounded_together() -> None:
    await with_scripted(Scripted([tool(title="x" * 300_000)], pages=True), unavailable)


async def test_the_lists_of_a_runs_servers_are_bounded_together() -> None:
    async def use(box: Toolbox) -> None:
        offered = [name.rpartition("_")[2] for name in names(box)[1:]]
        assert sorted(offered) == ["show", "show", "unavailable"]

    await with_scripted(Scripted([tool(title="x" * 400_000)]), use, servers=3)


async def test_a_few_servers_are_opened_at_once() -> None:
    server = Scripted([tool()], together=MAX_OPENING)

    async def use(box: Toolbox) -> None:
        assert len(names(box)) == 1 + 2 * MAX_OPENING

    await with_scripted(server, use, servers=2 * MAX_OPENING)
    assert server.at_once == MAX_OPENING


@pytest.mark.parametrize(
    "result",
    [
        {"content": [{"type": "text", "text": "x" * 600_000}]},
        {"content": [], "structuredContent": {"lists": [[]] * 100_000}},
    ],
    ids=["text", "lists"],
)
async def test_the_answer_to_a_call_is_bounded(result: dict[str, Any]) -> None:
    async def use(box: Toolbox) -> None:
        for _ in range(2):  # the connection is made again for the second
            assert (await box.call("weather_show", {})).startswith("Error: The server sent too much")

    await with_scripted(Scripted([tool()], result), use)


async def test_each_call_has_bounds_of_its_own() -> None:
    async def use(box: Toolbox) -> None:
        for _ in range(3):
            assert (await box.call("weather_show", {})).startswith("xxx")

    await with_scripted(Scripted([tool()], {"content": [{"type": "text", "text": "x" * 400_000}]}), use)
