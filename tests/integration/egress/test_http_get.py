"""`http_get` against real servers: what it gives the model, and what a bad server can't do to it."""

from __future__ import annotations

import asyncio
import gzip
import time
import zlib
from collections.abc import AsyncIterator

import pytest

from kgents.agents.tools import builtin, egress
from kgents.agents.tools.egress import MAX_REDIRECTS
from kgents.agents.tools.toolbox import Toolbox
from kgents.clock import ManualClock
from kgents.config import Settings
from tests.support.canary import Canary, plain, redirect, serve
from tests.support.ports import free_port

ALLOWED = Settings(egress_allow=["127.0.0.0/8"])


@pytest.fixture
async def box() -> AsyncIterator[Toolbox]:
    async with Toolbox.open(
        [{"type": "builtin", "name": "http_get"}], tenant_id="ten_1", settings=ALLOWED, clock=ManualClock()
    ) as opened:
        yield opened


async def answer_to(box: Toolbox, answer: bytes) -> str:
    """What the model reads of a server's `answer`."""
    async with serve(lambda head: answer) as server:
        return await box.call("http_get", {"url": server.url})


async def test_gives_the_text(box: Toolbox) -> None:
    assert await answer_to(box, plain("Grüße".encode(), headers="content-type: text/plain; charset=utf-8")) == "Grüße"


async def test_gives_json(box: Toolbox) -> None:
    assert await answer_to(box, plain(b'{"a": 1}', headers="content-type: application/json")) == '{"a": 1}'


async def test_an_exempted_host_name_may_be_inside() -> None:
    settings = Settings(egress_allow=["localhost"])
    async with (
        serve() as server,
        Toolbox.open(
            [{"type": "builtin", "name": "http_get"}], tenant_id="ten_1", settings=settings, clock=ManualClock()
        ) as box,
    ):
        assert await box.call("http_get", {"url": f"http://localhost:{server.port}/"}) == "canary"
        assert (await box.call("http_get", {"url": server.url})).startswith("Error: ")


async def test_reads_other_character_sets(box: Toolbox) -> None:
    headers = "content-type: text/html; charset=ISO-8859-1"
    assert await answer_to(box, plain("Grüße".encode("latin-1"), headers=headers)) == "Grüße"


@pytest.mark.parametrize("charset", ["rot13", "idna", "punycode", "unicode_escape", "nonsense", "gbnonsense"])
async def test_a_strange_character_set_is_read_as_utf8(box: Toolbox, charset: str) -> None:
    assert await answer_to(box, plain(b"a\\x41", headers=f"content-type: text/plain; charset={charset}")) == "a\\x41"


async def test_bytes_that_are_no_text_are_replaced(box: Toolbox) -> None:
    assert await answer_to(box, plain(b"a\xff\x00b")) == "a\ufffd\ufffdb"


async def test_an_image_is_no_text(box: Toolbox) -> None:
    answer = await answer_to(box, plain(b"\x89PNG", headers="content-type: image/png"))
    assert answer == "Error: The server answered HTTP 200 with image/png, which is not text."


async def test_a_status_that_is_no_success_is_an_error(box: Toolbox) -> None:
    answer = await answer_to(box, plain(b"nothing here", status="404 Not Found"))
    assert answer == "Error: The server answered HTTP 404: nothing here"


async def test_unpacks_gzip(box: Toolbox) -> None:
    packed = gzip.compress(b"hello " * 1000)
    headers = "content-type: text/plain\r\ncontent-encoding: gzip"
    assert await answer_to(box, plain(packed, headers=headers)) == "hello " * 1000


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip"])
async def test_other_compression_is_refused(box: Toolbox, encoding: str) -> None:
    body = zlib.compress(b"hello")
    answer = await answer_to(box, plain(body, headers=f"content-type: text/plain\r\ncontent-encoding: {encoding}"))
    assert "was not asked for" in answer


async def test_broken_gzip_is_an_error(box: Toolbox) -> None:
    headers = "content-type: text/plain\r\ncontent-encoding: gzip"
    assert (await answer_to(box, plain(b"not gzip", headers=headers))).startswith("Error: The request failed")


async def test_a_decompression_bomb_is_cut_off(box: Toolbox) -> None:
    bomb = gzip.compress(b"\0" * 200_000_000, 9)
    headers = "content-type: text/plain\r\ncontent-encoding: gzip"
    started = time.monotonic()
    answer = await answer_to(box, plain(bomb, headers=headers))
    assert answer.endswith(f"[cut off after {builtin.MAX_TEXT} bytes]")
    assert time.monotonic() - started < 5


async def test_a_long_body_is_cut_off(box: Toolbox) -> None:
    answer = await answer_to(box, plain(b"x" * 3_000_000))
    assert len(answer) < builtin.MAX_TEXT + 100
    assert answer.endswith("bytes]")


async def test_too_many_headers_are_refused(box: Toolbox) -> None:
    headers = "\r\n".join(f"x-{n}: 1" for n in range(egress.MAX_HEADERS + 1))
    assert "headers" in await answer_to(box, plain(headers=headers))


async def test_huge_headers_are_an_error(box: Toolbox) -> None:
    assert (await answer_to(box, plain(headers="x-a: " + "y" * 300_000))).startswith("Error: ")


@pytest.mark.parametrize("answer", [b"", b"\x00\x01\x02\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"SSH-2.0-x\r\n\r\n"])
async def test_what_is_not_http_is_an_error(box: Toolbox, answer: bytes) -> None:
    assert (await answer_to(box, answer)).startswith("Error: The request failed")


async def test_a_server_that_is_not_there_is_an_error(box: Toolbox) -> None:
    answer = await box.call("http_get", {"url": f"http://127.0.0.1:{free_port()}/"})
    assert answer == "Error: The request failed (ConnectError)."


async def test_follows_redirects(box: Toolbox) -> None:
    async with serve(lambda head: plain() if "GET /there " in head else redirect("/there")) as server:
        assert await box.call("http_get", {"url": server.url}) == "canary"


async def test_follows_a_bounded_number_of_redirects(box: Toolbox) -> None:
    async with serve(lambda head: redirect("/again")) as server:
        assert await box.call("http_get", {"url": server.url}) == "Error: The server redirects too often."
    assert server.connections == MAX_REDIRECTS + 1


async def test_a_server_that_drips_is_left(box: Toolbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "HTTP_SECONDS", 0.3)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1000\r\n\r\n")
            while not reader.at_eof():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    assert await box.call("http_get", {"url": url}) == "Error: The server did not answer within 0.3 s."
    server.close()


async def test_endless_interim_answers_are_left(box: Toolbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "HTTP_SECONDS", 0.3)

    async def interim(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not reader.at_eof():
                writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(0.001)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(interim, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    assert (await box.call("http_get", {"url": url})).startswith("Error: ")
    server.close()


async def test_no_cookie_is_kept(box: Toolbox) -> None:
    def answer(head: str) -> bytes:
        return plain(headers="content-type: text/plain\r\nset-cookie: a=b; Path=/")

    async with serve(answer) as server:
        await box.call("http_get", {"url": server.url})
        await box.call("http_get", {"url": server.url})
    assert not [head for head in server.heads if "cookie" in head.lower()]


async def test_sends_the_name_as_host_and_nothing_of_this_process(box: Toolbox) -> None:
    settings = Settings(egress_allow=["localhost"])
    async with (
        serve() as server,
        Toolbox.open(
            [{"type": "builtin", "name": "http_get"}], tenant_id="ten_1", settings=settings, clock=ManualClock()
        ) as named,
    ):
        await named.call("http_get", {"url": f"http://localhost:{server.port}/a?b=c"})
        names = sorted(line.partition(":")[0].lower() for line in lines_of(server))
        assert server.heads[0].startswith("GET /a?b=c HTTP/1.1\r\n")
        assert f"localhost:{server.port}" in server.heads[0]
        assert names == ["accept", "accept-encoding", "connection", "host", "user-agent"]


def lines_of(server: Canary) -> list[str]:
    return [line for line in server.heads[0].splitlines()[1:] if line]
