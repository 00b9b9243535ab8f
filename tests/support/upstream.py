"""A server on loopback that speaks OpenAI's chat completions, well or badly: the model that is asked for says how. The
models `claude` and `gemini` answer as Anthropic's and Google's APIs do.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

SECRET_IN_ANSWERS = "sk-upstream-secret-quoted-back"
USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}


@dataclass
class Upstream:
    """The running server. `requests` are the bodies it was sent, `keys` the credentials, over `connections` in all."""

    url: str
    connections: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    traceparents: list[str] = field(default_factory=list)


@asynccontextmanager
async def serve_upstream() -> AsyncIterator[Upstream]:
    """Run the server for as long as the context lasts."""
    upstream = Upstream("")
    serving: set[asyncio.Task[Any] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        upstream.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if line)
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                upstream.requests.append(body)
                credentials = (headers.get(name, "") for name in ("authorization", "x-api-key", "x-goog-api-key"))
                upstream.keys.append("".join(credentials).removeprefix("bearer "))
                upstream.traceparents.append(headers.get("traceparent", ""))
                path = head.split(" ", 2)[1]
                name = body.get("model") or path.rpartition("/")[2].partition(":")[0]
                await _SCENES[name](writer, body)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield upstream
    finally:
        server.close()
        tasks = [task for task in serving if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def upstream_in_a_thread() -> Iterator[Upstream]:
    """The server, for tests that have no event loop of their own."""
    loop = asyncio.new_event_loop()
    started: list[Upstream] = []
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with serve_upstream() as running:
            started.append(running)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


async def _send(writer: asyncio.StreamWriter, status: str, body: bytes, kind: str = "application/json") -> None:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


async def _start_stream(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    await writer.drain()


async def _piece(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()


def _event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    chunk = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "up",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return f"data: {json.dumps(chunk)}\n\n".encode()


def _usage(usage: dict[str, Any]) -> bytes:
    chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "up", "choices": [], "usage": usage}
    return f"data: {json.dumps(chunk)}\n\n".encode()


def _completion(message: dict[str, Any], finish: str, usage: dict[str, int] | None) -> bytes:
    body: dict[str, Any] = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "up",
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}],
    }
    if usage:
        body["usage"] = usage
    return json.dumps(body).encode()


async def _answer(writer: asyncio.StreamWriter, body: dict[str, Any], usage: dict[str, int] | None = USAGE) -> None:
    if not body.get("stream"):
        await _send(writer, "200 OK", _completion({"content": "Hello from upstream"}, "stop", usage))
        return
    await _start_stream(writer)
    for word in ("Hello ", "from ", "upstream"):
        await _piece(writer, _event({"content": word}))
    await _piece(writer, _event({}, "stop"))
    if usage:
        await _piece(writer, _usage(usage))
    await _piece(writer, b"data: [DONE]\n\n")
    await _piece(writer, b"")


async def _no_usage(writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
    await _answer(writer, body, None)


async def _tool(writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "calculator", "arguments": '{"expression":"1+1"}'}}
    await _send(writer, "200 OK", _completion({"content": None, "tool_calls": [call]}, "tool_calls", USAGE))


def _error(status: str, headers: str = "", **error: Any) -> Callable[[asyncio.StreamWriter, Any], Awaitable[None]]:
    async def scene(writer: asyncio.StreamWriter, _body: Any) -> None:
        body = json.dumps(
            {"error": {"message": f"no: {SECRET_IN_ANSWERS}", "type": "x", "code": None, **error}}
        ).encode()
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    return scene


_ORDER = re.compile(r"CALL ([\w.-]+) (\{.*\})")


async def _obey(writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
    """The most gullible model: it does whatever it is told by whatever it read last, and else repeats that."""
    text = str(body["messages"][-1]["content"])
    calls = [
        {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, (name, arguments) in enumerate(_ORDER.findall(text))
    ]
    message = {"content": None, "tool_calls": calls} if calls else {"content": text}
    await _send(writer, "200 OK", _completion(message, "tool_calls" if calls else "stop", USAGE))


async def _bomb(writer: asyncio.StreamWriter, _body: Any) -> None:
    """200 MB in 200 KB."""
    packed = gzip.compress(b" " * 200_000_000, 9)
    head = f"content-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: {len(packed)}"
    writer.write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + packed)
    await writer.drain()


def _claiming(usage: dict[str, Any]) -> Callable[[asyncio.StreamWriter, Any], Awaitable[None]]:
    async def scene(writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        await _answer(writer, body, usage)

    return scene


async def _usage_in_each(writer: asyncio.StreamWriter, _body: Any) -> None:
    """A stream whose chunks each report the usage so far."""
    await _start_stream(writer)
    for number, word in enumerate(("Hello ", "from ", "upstream"), 1):
        usage = json.dumps({**USAGE, "completion_tokens": number})
        await _piece(writer, _event({"content": word}).replace(b'"choices"', f'"usage": {usage}, "choices"'.encode()))
    await _piece(writer, _event({}, "stop").replace(b'"choices"', f'"usage": {json.dumps(USAGE)}, "choices"'.encode()))
    await _piece(writer, b"data: [DONE]\n\n")
    await _piece(writer, b"")


async def _hang(_writer: asyncio.StreamWriter, _body: Any) -> None:
    await asyncio.Event().wait()


async def _hang_midway(writer: asyncio.StreamWriter, _body: Any) -> None:
    await _start_stream(writer)
    await _piece(writer, _event({"content": "Hello "}))
    await asyncio.Event().wait()


async def _close(writer: asyncio.StreamWriter, _body: Any) -> None:
    writer.close()


async def _close_midway(writer: asyncio.StreamWriter, _body: Any) -> None:
    await _start_stream(writer)
    await _piece(writer, _event({"content": "Hello "}))
    writer.close()


async def _close_after_usage(writer: asyncio.StreamWriter, _body: Any) -> None:
    """All that matters was said; only the end of the stream is missing."""
    await _start_stream(writer)
    await _piece(writer, _event({"content": "Hello from upstream, and a few words more"}))
    await _piece(writer, _event({}, "stop"))
    await _piece(writer, _usage(USAGE))
    writer.close()


def _done_and(then: Callable[[asyncio.StreamWriter, Any], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """All was said, the last word included, but the answer does not end."""

    async def scene(writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        await _start_stream(writer)
        for data in (_event({"content": "Hello from upstream"}), _event({}, "stop"), _usage(USAGE)):
            await _piece(writer, data)
        await _piece(writer, b"data: [DONE]\n\n")
        await then(writer, body)

    return scene


async def _close_after_tool_call(writer: asyncio.StreamWriter, _body: Any) -> None:
    """As above, for an answer without a word of text."""
    call = {"index": 0, "id": "call_1", "type": "function"}
    await _start_stream(writer)
    await _piece(writer, _event({"tool_calls": [{**call, "function": {"name": "calculator", "arguments": "{}"}}]}))
    await _piece(writer, _event({}, "tool_calls"))
    await _piece(writer, _usage(USAGE))
    writer.close()


async def _half_characters(writer: asyncio.StreamWriter, _body: Any) -> None:
    """An emoji in two parts, as servers cut it that count in UTF-16, and half of another one at the end."""
    await _start_stream(writer)
    for part in ("Hello \ud83d", "\ude00!", "\ud83d"):
        await _piece(writer, _event({"content": part}))
    await _piece(writer, _event({}, "stop"))
    await _piece(writer, _usage(USAGE))
    await _piece(writer, b"data: [DONE]\n\n")
    await _piece(writer, b"")


async def _odd_types(writer: asyncio.StreamWriter, _body: Any) -> None:
    """Numbers where OpenAI's API has strings."""
    await _start_stream(writer)
    for data in (_event({"content": "Hello"}), _event({}, "stop"), _usage(USAGE)):
        await _piece(writer, data.replace(b'"id": "c1"', b'"id": 123').replace(b'"model": "up"', b'"model": 7'))
    await _piece(writer, b"data: [DONE]\n\n")
    await _piece(writer, b"")


async def _end_midway(writer: asyncio.StreamWriter, _body: Any) -> None:
    await _start_stream(writer)
    await _piece(writer, _event({"content": "Hello "}))
    await _piece(writer, b"")


def _garbage(data: bytes, kind: str) -> Callable[[asyncio.StreamWriter, Any], Awaitable[None]]:
    async def scene(writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        if body.get("stream"):
            await _start_stream(writer)
            await _piece(writer, data)
            await _piece(writer, b"")
        else:
            await _send(writer, "200 OK", data, kind)

    return scene


def _unreadable(choices: list[Any], usage: dict[str, int] | None = USAGE) -> bytes:
    """A completion that is well but for its choices."""
    body = {"id": "c1", "object": "chat.completion", "created": 1, "model": "up", "choices": choices, "usage": usage}
    return json.dumps(body).encode()


_CUSTOM_CALL = {"id": "call_1", "type": "custom", "custom": {"name": "x", "input": "y"}}


async def _not_http(writer: asyncio.StreamWriter, _body: Any) -> None:
    writer.write(b"\x00\x01\x02 SSH-2.0-OpenSSH_9.2\r\n\r\n")
    await writer.drain()
    writer.close()


async def _error_midway(writer: asyncio.StreamWriter, _body: Any) -> None:
    await _start_stream(writer)
    await _piece(writer, _event({"content": "Hello "}))
    message = {"error": {"message": SECRET_IN_ANSWERS, "type": "server_error", "code": None}}
    await _piece(writer, f"data: {json.dumps(message)}\n\n".encode())
    await _piece(writer, b"")


async def _claude(writer: asyncio.StreamWriter, _body: Any) -> None:
    body = {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [{"type": "text", "text": "Hello from Claude"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 5, "output_tokens": 4},
    }
    await _send(writer, "200 OK", json.dumps(body).encode())


async def _gemini(writer: asyncio.StreamWriter, _body: Any) -> None:
    content = {"role": "model", "parts": [{"text": "Hello from Gemini"}]}
    body = {
        "candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 6, "candidatesTokenCount": 3, "totalTokenCount": 9},
        "modelVersion": "gemini",
    }
    await _send(writer, "200 OK", json.dumps(body).encode())


_SCENES: dict[str, Callable[[asyncio.StreamWriter, Any], Awaitable[None]]] = {
    "answer": _answer,
    "no-usage": _no_usage,
    "claude": _claude,
    "gemini": _gemini,
    "tool": _tool,
    "500": _error("500 Internal Server Error"),
    "503": _error("503 Service Unavailable"),
    "504": _error("504 Gateway Timeout"),
    "400": _error("400 Bad Request"),
    "401": _error("401 Unauthorized", code="invalid_api_key"),
    "403": _error("403 Forbidden"),
    "404": _error("404 Not Found", code="model_not_found"),
    "429": _error("429 Too Many Requests", "retry-after: 7\r\n", code="rate_limit_exceeded"),
    "quota": _error("429 Too Many Requests", code="insufficient_quota"),
    "context": _error("400 Bad Request", code="context_length_exceeded"),
    "redirect": _error("307 Temporary Redirect", "location: http://127.0.0.1:9/\r\n"),
    "usage-in-each": _usage_in_each,
    "hang": _hang,
    "hang-midway": _hang_midway,
    "close": _close,
    "close-midway": _close_midway,
    "close-after-usage": _close_after_usage,
    "close-after-tool-call": _close_after_tool_call,
    "done-and-hang": _done_and(_hang),
    "done-and-close": _done_and(_close),
    "half-characters": _half_characters,
    "odd-types": _odd_types,
    "end-midway": _end_midway,
    "error-midway": _error_midway,
    "not-json": _garbage(b"<html>Bad gateway</html>", "text/html"),
    "broken-json": _garbage(b'data: {"choices": [{"delta": \n\n', "application/json"),
    "other-json": _garbage(b'data: {"choices": "x", "id": []}\n\n', "application/json"),
    "null-json": _garbage(b"null", "application/json"),
    "binary": _garbage(bytes(range(256)) * 40, "application/json"),
    "no-choices": _garbage(_unreadable([]), "application/json"),
    "no-choices-and-no-usage": _garbage(_unreadable([], None), "application/json"),
    "null-message": _garbage(_unreadable([{"index": 0, "finish_reason": "stop", "message": None}]), "application/json"),
    "custom-call": _garbage(
        _unreadable(
            [
                {
                    "index": 0,
                    "finish_reason": "tool_calls",
                    "message": {"role": "assistant", "content": None, "tool_calls": [_CUSTOM_CALL]},
                }
            ]
        ),
        "application/json",
    ),
    "not-http": _not_http,
    "obeys": _obey,
    "bomb": _bomb,
    "claims-less": _claiming({"prompt_tokens": -5, "completion_tokens": -7, "total_tokens": -12}),
    "claims-fractions": _claiming({"prompt_tokens": 3.5, "completion_tokens": 2.5, "total_tokens": 6}),
    "claims-more": _claiming({"prompt_tokens": 10**30, "completion_tokens": 10**30, "total_tokens": 2 * 10**30}),
}
