"""The client of chat completions."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol

from kgents.agents.models.chat_client import pieces_of


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
