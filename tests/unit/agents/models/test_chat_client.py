"""The client of chat completions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol

from kgents.agents.models import chat_client
from kgents.agents.models.chat_client import events_of, pieces_of


async def test_what_came_before_the_connection_broke_is_read_however_late():
    loop = asyncio.get_running_loop()
    content = aiohttp.StreamReader(BaseProtocol(loop), 2**16, loop=loop)
    content.feed_data(b"one")
    content.feed_data(b"two")
    content.set_exception(aiohttp.ClientPayloadError("the connection broke"))
    pieces = pieces_of(content)

    assert await anext(pieces) == b"onetwo"
    with pytest.raises(aiohttp.ClientPayloadError):
        await anext(pieces)


async def given(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_events_are_the_same_however_they_are_cut(size):
    text = b": ping\n\ndata: one\r\ndata:two\r\n\r\nid: 1\n\ndata:  three\n\ndata: four\n"
    pieces = [text[start : start + size] for start in range(0, len(text), size)]

    assert [event async for event in events_of(given(pieces))] == [b"one\ntwo", b" three", b"four"]


@pytest.mark.parametrize("line", [b"x", b"data: x", b"data:\n", b"data: x\n"])
async def test_an_event_without_end_is_refused(line, monkeypatch):
    monkeypatch.setattr(chat_client, "MAX_EVENT", 1000)

    with pytest.raises(aiohttp.ClientPayloadError):
        [event async for event in events_of(given([line] * 2000))]


async def test_a_stream_without_end_of_small_events_is_read(monkeypatch):
    monkeypatch.setattr(chat_client, "MAX_EVENT", 1000)

    assert len([event async for event in events_of(given([b": ping\n\ndata: x\n\n"] * 2000))]) == 2000
