"""A client of OpenAI's chat completions with which pydantic-ai's `OpenAIChatModel` asks, in place of the SDK's own.

The SDK's `create` takes 2 ms of CPU for a request (it rewrites the body by its type hints, and httpx2 sends it); this
one takes a tenth of that, over aiohttp. What is mapped to and from messages stays pydantic-ai's, and errors are the
SDK's, so that everything above can't tell the difference.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import aiohttp
import httpx2
import orjson
import yarl
from openai import APIConnectionError, APIError, APITimeoutError, AsyncOpenAI, NotGiven, Omit
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import ValidationError

from kgents.telemetry import traces

MAX_EVENT = 16 * 1024 * 1024  # bytes of one event of a stream, unpacked, or of an answer in one piece

_END = 0.5  # seconds for a server to end an answer after it has said that this was all
_JSON = "application/json"
_TIMEOUTS = (TimeoutError, aiohttp.ServerTimeoutError)


class ChatClient(AsyncOpenAI):
    """An AsyncOpenAI whose `chat.completions.create` is the one below. `session` belongs to who made it."""

    def __init__(self, session: Session, *, api_key: str, base_url: str) -> None:
        super().__init__(
            api_key=api_key,
            base_url=base_url,
            organization="",
            project="",
            max_retries=0,
            http_client=httpx2.AsyncClient(transport=_Nowhere()),
        )
        self._session = session

    @cached_property
    def chat(self) -> Any:
        """OpenAI's name for what holds `completions`."""
        return _Chat(_Completions(self, self._session))


OPENAI = "api.openai.com"
"""The trace ends before it. Any other server is one that an operator named, such as a vLLM or a gateway of their own,
and goes on with the trace.
"""


class _Nowhere(httpx2.AsyncBaseTransport):
    """For the SDK's other requests, of which there are none."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:  # noqa: ARG002
        raise httpx2.UnsupportedProtocol("only chat completions are asked for")


class Session:
    """An aiohttp session that is opened where it is first used. `timeout` is how many seconds a server may stay silent,
    before and between the parts of an answer.
    """

    def __init__(self, timeout: float, *, connect: float, pool: float, connections: int, idle: float) -> None:
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=connect + pool, sock_connect=connect, sock_read=timeout
        )
        self._connections = connections
        self._idle = idle
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: yarl.URL, body: bytes, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """The response to a POST, as soon as its headers are there. A connection that can't be made is tried once more;
        nothing else is, since a retry that nobody sees would double the wait and may double the provider's bill.
        """
        session = self._session or self._open()
        try:
            return await session.post(url, data=body, headers=headers, allow_redirects=False)
        except aiohttp.ClientConnectorError:
            return await session.post(url, data=body, headers=headers, allow_redirects=False)

    async def aclose(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=self._idle),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
        )
        return self._session


class _Chat:
    def __init__(self, completions: _Completions) -> None:
        self.completions = completions


class _Completions:
    def __init__(self, client: ChatClient, session: Session) -> None:
        self._client = client
        self._session = session
        self._url = yarl.URL(f"{str(client.base_url).rstrip('/')}/chat/completions")
        self._request = httpx2.Request("POST", str(self._url))  # the SDK's errors name one

    async def create(
        self,
        *,
        stream: bool = False,
        extra_headers: Mapping[str, str] | None = None,
        extra_body: object = None,
        timeout: object = None,  # noqa: ARG002 - the SDK's
        **fields: Any,
    ) -> ChatCompletion | ChunkStream:
        """The completion, or the stream of its chunks. Raises the SDK's errors, and JSONDecodeError for no JSON.
        The `timeout` is always the session's.
        """
        body = {name: value for name, value in fields.items() if not isinstance(value, Omit | NotGiven)}
        if stream:
            body["stream"] = True
        if isinstance(extra_body, Mapping):
            body.update(extra_body)
        headers = {
            "Authorization": f"Bearer {self._client.api_key}",
            "Content-Type": _JSON,
            **(traces.outgoing() if self._url.host != OPENAI else {}),
            **(extra_headers or {}),
        }
        try:
            response = await self._session.post(self._url, orjson.dumps(body), headers)
            if response.status >= 300:
                raise await self._refusal(response)
            if stream:
                return ChunkStream(response, self._request)
            return completion_of(await whole(response))
        except _TIMEOUTS as error:
            raise APITimeoutError(request=self._request) from error
        except aiohttp.ClientError as error:
            raise APIConnectionError(request=self._request) from error

    async def _refusal(self, response: aiohttp.ClientResponse) -> APIError:
        content = await whole(response)
        # aiohttp has decoded it already.
        headers = [(name, value) for name, value in response.headers.items() if name.lower() != "content-encoding"]
        copy = httpx2.Response(response.status, headers=headers, content=content, request=self._request)
        return self._client._make_status_error_from_response(copy)


def completion_of(content: bytes) -> ChatCompletion:
    """The completion that a provider answered; one that breaks OpenAI's schema is read leniently, as the SDK does.

    Raises JSONDecodeError.
    """
    try:
        return ValidCompletion.model_validate_json(content)
    except ValidationError:
        return ChatCompletion.construct(**_object(orjson.loads(content)))


class ValidCompletion(ChatCompletion):
    """A completion that keeps to OpenAI's schema."""


class ChunkStream:
    """The chunks of a streamed completion, to be closed by its reader: what the SDK's AsyncStream is to pydantic-ai."""

    def __init__(self, response: aiohttp.ClientResponse, request: httpx2.Request) -> None:
        self._response = response
        self._request = request
        self._chunks = self._read()

    def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        return self._chunks

    async def __anext__(self) -> ChatCompletionChunk:
        return await anext(self._chunks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connection. It is used again if the whole answer was read."""
        await self._chunks.aclose()
        self._response.close()

    async def _read(self) -> AsyncGenerator[ChatCompletionChunk]:
        try:
            async with (
                aclosing(pieces_of(self._response.content)) as pieces,
                aclosing(events_of(pieces)) as events,
            ):
                async for data in events:
                    if data.startswith(b"[DONE]"):
                        await self._finish()
                        return
                    yield self._chunk(data)
        except _TIMEOUTS as error:
            raise APITimeoutError(request=self._request) from error
        except aiohttp.ClientError as error:
            raise APIConnectionError(request=self._request) from error

    async def _finish(self) -> None:
        """Read to the end of an answer of which all was said, so that its connection can be used again. A server may
        keep it open, or break it: that takes nothing from the answer.
        """
        with suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(_END):
                await self._response.read()

    def _chunk(self, data: bytes) -> ChatCompletionChunk:
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            value = json.loads(data)  # takes NaN, which some servers write
        error = value.get("error") if isinstance(value, dict) else None
        if error:
            message = error.get("message") if isinstance(error, dict) else None
            raise APIError(str(message or "An error occurred during streaming"), self._request, body=error)
        try:
            return ChatCompletionChunk.model_validate(value)
        except ValidationError:
            return ChatCompletionChunk.construct(**_object(value))


async def whole(response: aiohttp.ClientResponse) -> bytes:
    """The body of an answer in one piece, unpacked. Raises ClientPayloadError when that is larger than any is."""
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > MAX_EVENT:
            response.close()
            raise aiohttp.ClientPayloadError("the answer is too long")
    return b"".join(parts)


async def pieces_of(content: aiohttp.StreamReader) -> AsyncGenerator[bytes]:
    """What comes of a body, as it comes.

    Where the connection broke, aiohttp's own iterator says so in place of giving what had come before and was not read
    yet. The provider charges for that, and its report of the usage may be the last of it.
    """
    try:
        async for piece in content.iter_any():
            yield piece
    except aiohttp.ClientError:
        if rest := content._read_nowait(-1):
            yield rest
        raise


async def events_of(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """The data of each server-sent event (WHATWG HTML, 9.2.6), without those that have none. Raises ClientPayloadError
    for an event that is larger than any is.
    """
    begun: list[bytes] = []  # of a line; joined once it has ended, since it may come a byte at a time
    data: list[bytes] = []
    size = 0  # of the event so far, line ends included
    async for piece in pieces:
        first, *more = piece.split(b"\n")
        begun.append(first)
        size += len(piece)
        for start in more:
            line = b"".join(begun).removesuffix(b"\r")
            begun = [start]
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line:
                if data:
                    yield b"\n".join(data)
                    data.clear()
                size = len(piece)
        if size > MAX_EVENT:
            raise aiohttp.ClientPayloadError("an event of the stream is too long")
    if data:
        yield b"\n".join(data)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value
