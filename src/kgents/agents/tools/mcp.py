"""MCP servers as tools, by URL (streamable HTTP), through the same door as every other request of a tool.

The client runs in a task of its own: it keeps background tasks whose failure would otherwise cancel the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar

import httpx2
import orjson
from pydantic import ValidationError
from pydantic_ai.tools import ToolDefinition

from kgents.agents.models.json_bounds import Patterns, check_tools_patterns, patterns_in
from kgents.agents.models.json_schema import check_schema
from kgents.agents.tools.bounded import Budget
from kgents.agents.tools.egress import EgressRules, EgressTransport, Resolver, egress_client
from kgents.agents.tools.failures import ToolError
from kgents.errors import Unprocessable
from kgents.telemetry import traces

T = TypeVar("T")

OPEN_SECONDS = 10.0
CALL_SECONDS = 30.0
CLOSE_SECONDS = 2.0
MAX_TOOLS = 128
MAX_PAGES = 10
MAX_NAME = 64
MAX_DESCRIPTION = 4096
MAX_RESULT = 100_000
MAX_ANSWER = 524_288  # bytes of what a server sends until its tools are listed, and again for each call
MAX_MARKS = 65_536  # brackets, commas and colons in these


@dataclass(frozen=True, slots=True)
class McpTool:
    """A tool of a server: as the model sees it, and the name that the server knows it by."""

    definition: ToolDefinition
    remote_name: str


class _Call(NamedTuple):
    """A call that waits for its turn. The trace goes on at the server: gateways read it from the request's headers,
    servers from MCP's own `_meta`.
    """

    remote_name: str
    arguments: dict[str, Any]
    context: str | None
    answer: asyncio.Future[str]


class McpServer:
    """A connection to one MCP server. `open` it, `call` its tools one after the other, `close` it."""

    def __init__(self, name: str, url: str, headers: dict[str, str], rules: EgressRules, resolver: Resolver) -> None:
        self.name = name
        self.url = url
        self._headers = headers
        self._rules = rules
        self._resolver = resolver
        self.listing: Budget
        self._transport: EgressTransport
        self._task: asyncio.Task[None] | None = None
        self._calls: asyncio.Queue[_Call] = asyncio.Queue()
        self._why = "The connection to the server failed."

    async def open(self) -> list[McpTool]:
        """Connect and list the server's tools. Raises ToolError when that can't be done within 10 s and MAX_ANSWER.

        What the server sent for it is in `listing`.
        """
        if "mcp.client" not in sys.modules:
            await asyncio.to_thread(importlib.import_module, "mcp.client")  # takes 2 s
        self.listing = Budget(MAX_ANSWER, MAX_MARKS)
        self._transport = EgressTransport(self._rules, resolver=self._resolver, budget=self.listing)
        self._calls = asyncio.Queue()
        ready: asyncio.Future[list[McpTool]] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._serve(ready), name=f"mcp {self.name}")
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                return await self._outcome(ready)
        except TimeoutError as error:
            raise ToolError(f"The server did not answer within {OPEN_SECONDS:g} s.") from error

    async def call(self, remote_name: str, arguments: dict[str, Any]) -> str:
        """The result of a tool as text. Raises ToolError when the tool or the server fails, or after 30 s.

        Connects again when the connection broke off during an earlier call.
        """
        if self._task is None or self._task.done():
            await self.open()
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._calls.put_nowait(_Call(remote_name, arguments, traces.current(), answer))
        return await self._outcome(answer)

    async def close(self) -> None:
        """Disconnect, which may take the server 2 s to hear of."""
        if self._task is not None:
            self._task.cancel()
            _, pending = await asyncio.wait([self._task], timeout=CLOSE_SECONDS)
            for task in pending:
                task.cancel()

    async def _outcome(self, future: asyncio.Future[T]) -> T:
        """What `future` becomes, unless the connection's task ends before. Raises ToolError."""
        assert self._task is not None
        try:
            either: list[asyncio.Future[Any]] = [future, self._task]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if future.done():
                return future.result()
            raise ToolError(self._refusal() or self._why)
        finally:
            future.cancel()

    def _refusal(self) -> str | None:
        """Why we, not the server, ended an exchange."""
        transport = self._transport
        if transport.refused:
            return transport.refused.detail
        if transport.budget is not None and transport.budget.spent:
            return (
                f"The server sent too much: a list of tools, and the answer to a call, may have {MAX_ANSWER} bytes and "
                f"in these {MAX_MARKS} brackets, commas and colons. Ask it for less."
            )
        return None

    async def _serve(self, ready: asyncio.Future[list[McpTool]]) -> None:
        from mcp.client import Client
        from mcp.client.streamable_http import streamable_http_client
        from mcp_types import Implementation

        # A request that times out by itself would end the connection; the timeouts of a call end only the call.
        http = egress_client(self._transport, headers=self._headers | traces.outgoing(), timeout=2 * CALL_SECONDS)
        try:
            async with (
                http,
                Client(
                    streamable_http_client(self.url, http_client=http),
                    read_timeout_seconds=2 * CALL_SECONDS,
                    client_info=Implementation(name="kgents", version="1"),
                    cache=None,
                ) as client,
            ):
                # The client would check results against the server's own schema, without a bound on the time it takes.
                client.session.validate_tool_result = _unchecked  # type: ignore[method-assign]
                ready.set_result(_tools(self.name, await _listed(client)))
                while True:
                    call = await self._calls.get()
                    with traces.within(call.context):
                        http.headers.update(traces.outgoing())
                        await self._answer(client, call)
        except Exception as error:
            self._why = f"The connection to the server failed: {_reason(error)}"

    async def _answer(self, client: Any, call: _Call) -> None:
        answer = call.answer
        self._transport.budget = Budget(MAX_ANSWER, MAX_MARKS)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                result = await client.call_tool(call.remote_name, call.arguments, meta=traces.outgoing())
        except TimeoutError:
            failure = ToolError(f"The tool did not answer within {CALL_SECONDS:g} s.")
        except Exception as error:
            failure = ToolError(self._refusal() or f"The tool failed: {_reason(error)}")
        else:
            text = _text_of(result)
            if not result.is_error:
                if not answer.done():
                    answer.set_result(text)
                return
            failure = ToolError(text or "The tool failed.")
        if not answer.done():
            answer.set_exception(failure)


async def _unchecked(name: str, result: Any) -> None:  # noqa: ARG001
    return None


async def _listed(client: Any) -> list[Any]:
    tools: list[Any] = []
    cursor = None
    for _ in range(MAX_PAGES):
        page = None
        with contextlib.suppress(ValidationError):  # which may be large, and is kept by what is raised within
            page = await client.list_tools(cursor=cursor)
        if page is None:
            raise ToolError("its list of tools is not as MCP has it.")
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None or len(tools) >= MAX_TOOLS:
            break
    return tools[:MAX_TOOLS]


def _tools(server: str, listed: Iterable[Any]) -> list[McpTool]:
    tools: dict[str, McpTool] = {}
    patterns = Patterns()
    for tool in listed:
        name = local_name(server, tool.name)
        if name in tools:
            continue
        schema, patterns = _usable(tool.input_schema, patterns)
        definition = ToolDefinition(
            name=name,
            description=(tool.description or tool.title or "")[:MAX_DESCRIPTION],
            parameters_json_schema=schema,
        )
        tools[name] = McpTool(definition, tool.name)
    return list(tools.values())


def _usable(schema: dict[str, Any], before: Patterns) -> tuple[dict[str, Any], Patterns]:
    """The schema, or that of any object where it can't be used; and the patterns that are counted by then, which are
    those of the tools before and its own.
    """
    its = patterns_in(schema)
    patterns = Patterns(before.number + its.number, before.characters + its.characters)
    try:
        check_tools_patterns(patterns)
    except Unprocessable:
        return {"type": "object"}, before
    try:
        check_schema(schema)
    except Unprocessable:
        return {"type": "object"}, patterns
    return (schema if schema.get("type") == "object" else {**schema, "type": "object"}), patterns


def local_name(server: str, tool: str) -> str:
    """The name of a server's tool for the model: `<server>_<tool>`, made to fit what providers accept."""
    plain = f"{server}_{tool}"
    name = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "_-") else "_" for sign in plain)
    if name == plain and len(name) <= MAX_NAME:
        return name
    return f"{name[: MAX_NAME - 9]}_{sha256(plain.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _text_of(result: Any) -> str:
    pieces = [_piece(item) for item in result.content]
    if not pieces and result.structured_content is not None:
        pieces = [orjson.dumps(result.structured_content).decode()]
    text = "\n".join(pieces).replace("\0", "\ufffd")
    return text if len(text) <= MAX_RESULT else f"{text[:MAX_RESULT]}\n[cut off after {MAX_RESULT} characters]"


def _piece(item: Any) -> str:
    if item.type == "text":
        return str(item.text)
    if item.type == "resource" and hasattr(item.resource, "text"):
        return str(item.resource.text)
    if item.type == "resource_link":
        return str(item.uri)
    return f"[{item.type}]"


def _reason(error: BaseException) -> str:
    """What a server says of a failure, or we do; of any other failure only its kind."""
    from mcp.shared.exceptions import MCPError

    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, ToolError):
        return str(error)
    if isinstance(error, MCPError):
        return str(error)[:1000].rstrip(".") + "."
    what = "it can't be reached" if isinstance(error, httpx2.TransportError) else "its answer was not understood"
    return f"{what} ({type(error).__name__})."
