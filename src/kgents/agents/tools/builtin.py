"""The built-in tools: calculator, clock and http_get."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx2
from pydantic_ai.tools import ToolDefinition

from kgents.agents.tools.calculator import calculate
from kgents.agents.tools.egress import EgressRefused, EgressRules, EgressTransport, Resolver, egress_client, fetch
from kgents.agents.tools.failures import ToolError
from kgents.clock import Clock, to_datetime

MAX_TEXT = 100_000
HTTP_SECONDS = 15.0

_TEXT_TYPES = re.compile(r"text/.*|application/(.*\+)?(json|xml|yaml|javascript|x-ndjson|x-yaml)")
_CHARSET = re.compile(r"charset\s*=\s*\"?([\w.:-]+)", re.IGNORECASE)
_CODECS = re.compile(
    r"(utf-?8|us-ascii|ascii|utf-?16(-?[lb]e)?|iso-8859-\d+|windows-125\d|shift_jis|euc-(jp|kr)|gb\w+|big5|koi8-[ru])"
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the built-in tools work with."""

    clock: Clock
    rules: EgressRules
    resolver: Resolver


async def _calculator(arguments: dict[str, Any], _around: Surroundings) -> str:
    return calculate(arguments["expression"])


async def _clock(arguments: dict[str, Any], around: Surroundings) -> str:
    name = arguments.get("timezone", "UTC")
    try:
        zone = ZoneInfo(name)
    except (OSError, ValueError, LookupError) as error:
        raise ToolError("There is no such time zone. Use a name such as Europe/Zurich or UTC.") from error
    now: datetime = to_datetime(around.clock.now()).astimezone(zone)
    return f"{now.isoformat(timespec='seconds')} ({now:%A}, {name})"


async def _http_get(arguments: dict[str, Any], around: Surroundings) -> str:
    try:
        transport = EgressTransport(around.rules, resolver=around.resolver)
        async with asyncio.timeout(HTTP_SECONDS), egress_client(transport) as client:
            fetched = await fetch(client, arguments["url"], max_bytes=MAX_TEXT)
    except EgressRefused as refused:
        raise ToolError(refused.detail) from refused
    except httpx2.TooManyRedirects as error:
        raise ToolError("The server redirects too often.") from error
    except (TimeoutError, httpx2.TimeoutException) as error:
        raise ToolError(f"The server did not answer within {HTTP_SECONDS:g} s.") from error
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
        raise ToolError(f"The request failed ({type(error).__name__}).") from error
    kind = fetched.content_type.partition(";")[0].strip().lower()
    if fetched.body and not _TEXT_TYPES.fullmatch(kind or "text/plain"):
        raise ToolError(f"The server answered HTTP {fetched.status} with {kind[:100]}, which is not text.")
    text = _decoded(fetched.body, fetched.content_type)
    if not 200 <= fetched.status < 300:
        raise ToolError(f"The server answered HTTP {fetched.status}: {text[:1000]}")
    return text if fetched.complete else f"{text}\n[cut off after {MAX_TEXT} bytes]"


def _decoded(body: bytes, content_type: str) -> str:
    found = _CHARSET.search(content_type)
    name = found[1].lower() if found else "utf-8"
    try:
        text = body.decode(name if _CODECS.fullmatch(name) else "utf-8", "replace")
    except LookupError:
        text = body.decode("utf-8", "replace")
    return text.replace("\0", "\ufffd")


@dataclass(frozen=True, slots=True)
class Builtin:
    """A built-in tool: what the model is told of it, and what runs."""

    definition: ToolDefinition
    run: Callable[[dict[str, Any], Surroundings], Awaitable[str]]


def _builtin(
    name: str,
    description: str,
    properties: dict[str, Any],
    required: list[str],
    run: Callable[[dict[str, Any], Surroundings], Awaitable[str]],
) -> Builtin:
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return Builtin(ToolDefinition(name=name, description=description, parameters_json_schema=schema), run)


BUILTINS = {
    tool.definition.name: tool
    for tool in (
        _builtin(
            "calculator",
            "Works out arithmetic exactly: + - * / // % **, parentheses, pi, e, abs, ceil, exp, floor, gcd, ln, log10, "
            "max, min, round, sqrt.",
            {"expression": {"type": "string", "description": "Such as (2 + 3) * 4 / 7."}},
            ["expression"],
            _calculator,
        ),
        _builtin(
            "clock",
            "Tells the present date, time and day of the week.",
            {"timezone": {"type": "string", "description": "An IANA name such as Europe/Zurich; UTC if left out."}},
            [],
            _clock,
        ),
        _builtin(
            "http_get",
            "Gets the text or JSON at a public https URL.",
            {"url": {"type": "string", "description": "Such as https://example.com/data.json."}},
            ["url"],
            _http_get,
        ),
    )
}
