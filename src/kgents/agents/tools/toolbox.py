"""The tools of one run: opened from an agent's definition, called by name, closed at the run's end.

What goes wrong in a tool is told to the model as the call's result. A server that can't be reached leaves a tool in
the place of its own that says so, since a model that is not told would make something up.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pydantic_ai.tools import ToolDefinition

from kgents.agents.models.json_schema import complaint
from kgents.agents.tools.bounded import Budget
from kgents.agents.tools.builtin import BUILTINS, Builtin, Surroundings
from kgents.agents.tools.egress import EgressRefused, EgressRules, Resolver, resolver_for
from kgents.agents.tools.failures import ToolError
from kgents.agents.tools.mcp import MAX_ANSWER, MAX_MARKS, McpServer, McpTool, local_name
from kgents.clock import Clock
from kgents.config import Settings
from kgents.errors import Unprocessable
from kgents.telemetry import traces

Action = Callable[[dict[str, Any]], Awaitable[str]]

MAX_DEFINITIONS = 32
MAX_OPENING = 4  # tool servers of a run at once
MAX_LISTS = 2  # times what one server may list: the lists of a run's servers together
MAX_HEADERS = 32
MAX_HEADER = 4096

_SERVER_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")
_OURS = frozenset(
    {
        *("host", "connection", "content-length", "content-type", "transfer-encoding", "upgrade", "te", "trailer"),
        *("accept", "accept-encoding", "expect", "keep-alive", "proxy-authorization", "proxy-connection"),
        *("mcp-session-id", "mcp-protocol-version", "last-event-id", "cookie"),
    }
)


class Toolbox:
    """The tools of a run. `definitions` is what the model is told of them."""

    def __init__(self) -> None:
        self.definitions: list[ToolDefinition] = []
        self._calls: dict[str, tuple[str, Action, dict[str, Any]]] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, tools: Sequence[dict[str, Any]], *, tenant_id: str, settings: Settings, clock: Clock
    ) -> AsyncGenerator[Toolbox]:
        """The toolbox of the `tools` of a tenant's agent, each `{"type": "builtin", "name": ...}` or `{"type": "mcp",
        "name": ..., "url": ..., "headers": {...}}`. Raises nothing for tools that can't be had.
        """
        box = cls()
        servers: list[McpServer] = []
        try:
            if tools:
                rules = EgressRules.parse(settings.egress_allow)
                resolver = resolver_for(tenant_id)
                around = Surroundings(clock, rules, resolver)
                servers = [_server(tool, rules, resolver) for tool in tools if tool.get("type") == "mcp"]
                turns, kept = asyncio.Semaphore(MAX_OPENING), Budget(MAX_LISTS * MAX_ANSWER, MAX_LISTS * MAX_MARKS)
                offers = iter(await asyncio.gather(*(_offers(server, rules, turns, kept) for server in servers)))
                for tool in tools:
                    if tool.get("type") == "mcp":
                        for definition, run in next(offers):
                            box._add("mcp", definition, run)
                    elif tool.get("name") in BUILTINS:
                        box._add("builtin", *_builtin(BUILTINS[tool["name"]], around))
            yield box
        finally:
            if servers:
                await asyncio.gather(*(server.close() for server in servers))

    def kind_of(self, name: str) -> str:
        """`builtin` or `mcp`; `unknown` for a tool that is not in the box."""
        found = self._calls.get(name)
        return found[0] if found else "unknown"

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """The result of a tool, or what went wrong, as text for the model. Raises nothing of the tool's."""
        found = self._calls.get(name)
        if found is None:
            names = ", ".join(definition.name for definition in self.definitions) or "none"
            return f"Error: there is no tool {name[:100]!r}. The tools are: {names}."
        _, run, schema = found
        try:
            wrong = complaint(schema, arguments)
            if wrong:
                return f"Error: the arguments do not match the tool's schema: {wrong}."
            return await run(arguments)
        except ToolError as error:
            traces.failed(error)
            return f"Error: {error}"
        except Unprocessable as error:
            traces.failed(error)
            return f"Error: {error.detail}"
        except Exception as error:
            traces.failed(error)
            return f"Error: the tool failed ({type(error).__name__})."

    def _add(self, kind: str, definition: ToolDefinition, run: Action) -> None:
        if definition.name not in self._calls:
            self.definitions.append(definition)
            self._calls[definition.name] = (kind, run, definition.parameters_json_schema)


def _builtin(tool: Builtin, around: Surroundings) -> tuple[ToolDefinition, Action]:
    return tool.definition, lambda arguments: tool.run(arguments, around)


def _server(tool: dict[str, Any], rules: EgressRules, resolver: Resolver) -> McpServer:
    name, url, headers = str(tool.get("name", "mcp")), str(tool.get("url", "")), dict(tool.get("headers") or {})
    return McpServer(name, url, headers, rules, resolver)


async def _offers(
    server: McpServer, rules: EgressRules, turns: asyncio.Semaphore, kept: Budget
) -> list[tuple[ToolDefinition, Action]]:
    try:
        rules.check_url(server.url)
        async with turns:
            listed = await server.open()
        if not kept.has_room(server.listing.bytes, server.listing.marks):
            await server.close()
            raise ToolError("The agent's tool servers list too many tools together. Give it fewer of them.")
        return [(tool.definition, _remote(server, tool)) for tool in listed]
    except ToolError as error:
        return [_unavailable(server.name, str(error))]
    except EgressRefused as refused:
        return [_unavailable(server.name, refused.detail)]


def _remote(server: McpServer, tool: McpTool) -> Action:
    return lambda arguments: server.call(tool.remote_name, arguments)


def _unavailable(name: str, reason: str) -> tuple[ToolDefinition, Action]:
    async def tell(_arguments: dict[str, Any]) -> str:
        raise ToolError(f"the tools of {name} can't be used now. {reason}")

    definition = ToolDefinition(
        name=local_name(name, "unavailable"),
        description=f"The tools of {name} can't be used now: {reason} Tell the user so where they are needed.",
        parameters_json_schema={"type": "object", "properties": {}},
    )
    return definition, tell


def check_tools(tools: Sequence[dict[str, Any]], settings: Settings) -> None:
    """Raise Unprocessable (`tool-invalid`, `egress-refused`) for tools that an agent can't be given.

    Looks at their form only: a server need not be up when an agent is made.
    """
    if len(tools) > MAX_DEFINITIONS:
        raise _invalid(f"An agent can have {MAX_DEFINITIONS} tools and tool servers at most.")
    rules = EgressRules.parse(settings.egress_allow)
    names: set[str] = set()
    for tool in tools:
        name = tool.get("name")
        if tool.get("type") == "builtin":
            if name not in BUILTINS:
                raise _invalid(f"There is no built-in tool {str(name)[:100]!r}. There are: {', '.join(BUILTINS)}.")
        elif tool.get("type") == "mcp":
            _check_server(tool, rules)
        else:
            raise _invalid('A tool\'s type is "builtin" or "mcp".')
        if name in names:
            raise _invalid(f"The name {name!r} is used twice. Give each tool and tool server a name of its own.")
        names.add(str(name))


def _check_server(tool: dict[str, Any], rules: EgressRules) -> None:
    name, url, headers = tool.get("name"), tool.get("url"), tool.get("headers")
    headers = {} if headers is None else headers
    if not isinstance(name, str) or not _SERVER_NAME.fullmatch(name) or name in BUILTINS:
        raise _invalid(
            "A tool server's name is up to 32 of a-z, 0-9, _ and -, begins with a letter, and is no built-in's."
        )
    if not isinstance(url, str):
        raise _invalid(f"The tool server {name!r} needs a url.")
    rules.check_url(url)
    if not isinstance(headers, dict) or len(headers) > MAX_HEADERS:
        raise _invalid(f"The headers of the tool server {name!r} must be an object of at most {MAX_HEADERS} texts.")
    for header, value in headers.items():
        if not _HEADER_NAME.fullmatch(header) or header.lower() in _OURS:
            raise _invalid(f"The tool server {name!r} can't be given the header {header[:100]!r}.")
        if not isinstance(value, str) or len(value) > MAX_HEADER or not _HEADER_VALUE.fullmatch(value):
            raise _invalid(f"The value of the header {header!r} of the tool server {name!r} can't be sent.")


def _invalid(detail: str) -> Unprocessable:
    return Unprocessable(detail, code="tool-invalid")
