"""The product's client: the bytes that it sends are those of OpenMeter's SDK, and it tells a meter's faults apart."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from uuid import uuid4

import orjson
import pytest
from openmeter import Client
from openmeter.models import Event

from kgents.clock import SECOND, from_rfc3339
from kgents.errors import Unprocessable
from kgents.meter.client import MeterClient, MeterRefused, MeterUnavailable, Row
from kgents.usage.ledger import cloud_event
from kgents.usage.model import METERS, UsageEvent
from tests.contract.meter.process import MeterProcess, event
from tests.support.authority import Authority
from tests.support.ports import free_port
from tests.support.replies import Reply, replying

NOON = from_rfc3339("2026-03-10T12:00:00Z")


class Request(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes


class Recorder:
    """A meter that writes down what it is sent, and answers what the test wants."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.status, self.body = 204, b""
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                headers = {name.lower(): value for name, value in self.headers.items()}
                recorder.requests.append(Request(self.path, headers, body))
                self.send_response(recorder.status)
                self.send_header("content-length", str(len(recorder.body)))
                self.end_headers()
                self.wfile.write(recorder.body)

            do_GET = do_POST  # noqa: N815 - the base class's name

            def log_message(self, *args: Any) -> None:
                return

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.close()


@pytest.fixture
async def recorded(recorder: Recorder) -> AsyncIterator[MeterClient]:
    client = MeterClient(recorder.url, "secret", events_path="/v3/openmeter/events")
    yield client
    await client.aclose()


@pytest.fixture
async def client(shared_meter: MeterProcess) -> AsyncIterator[MeterClient]:
    client = shared_meter.client()
    yield client
    await client.aclose()


def usage(meter: str, occurred_at: int) -> UsageEvent:
    return UsageEvent(
        event_id=f"run_1:0:{meter}",
        tenant_id="ten_1",
        meter=meter,
        quantity=12,
        run_id="run_1",
        agent_id="agt_1",
        model="kgents:écho",
        estimated=False,
        occurred_at=occurred_at,
    )


@pytest.mark.parametrize("occurred_at", [NOON, NOON + 1, NOON + 120_000])
async def test_what_is_sent_is_what_the_official_sdk_sends(recorder: Recorder, occurred_at: int) -> None:
    events = [cloud_event(usage(meter, occurred_at), source="kgents") for meter in METERS]
    client = MeterClient(recorder.url, "secret")
    await client.ingest(orjson.dumps(events))
    await client.aclose()
    with Client(endpoint=recorder.url, token="secret", retry_total=0) as sdk:
        sdk.events.ingest_events(
            [Event(**{**item, "time": datetime.fromisoformat(str(item["time"]))}) for item in events]
        )
    ours, theirs = recorder.requests
    assert ours.path == theirs.path
    for header in ("content-type", "authorization"):
        assert ours.headers[header] == theirs.headers[header]
    our_events, their_events = json.loads(ours.body), json.loads(theirs.body)
    for item in (*our_events, *their_events):  # the SDK leaves out a fraction of zero
        item["time"] = datetime.fromisoformat(item["time"])
    assert our_events == their_events


async def test_events_go_to_the_path_that_is_set(recorder: Recorder, recorded: MeterClient) -> None:
    await recorded.ingest(b"[]")
    assert recorder.requests[0].path == "/v3/openmeter/events"


async def test_202_is_as_good_as_204(recorder: Recorder, recorded: MeterClient) -> None:
    recorder.status = 202
    await recorded.ingest(b"[]")


async def test_a_connection_that_the_server_ends_as_it_is_used_again_is_no_fault_of_the_meter() -> None:
    asked = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, keep the connection, and end it at the next one without a word."""
        nonlocal asked
        for answer in (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", b""):
            with contextlib.suppress(asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                asked += 1
                writer.write(answer)
        writer.close()

    async with await asyncio.start_server(once, "127.0.0.1", 0) as server:
        client = MeterClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "secret")
        for _ in range(3):
            await client.ping()
        await client.aclose()
    assert asked == 5  # two of them in vain


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_fault_of_the_events_is_told_with_its_detail(
    recorder: Recorder, recorded: MeterClient, status: int
) -> None:
    recorder.status, recorder.body = status, b'{"detail": "the subject is missing."}'
    with pytest.raises(MeterRefused, match=f"{status}, the subject is missing"):
        await recorded.ingest(b"[]")


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405, 408, 409, 415, 425, 429, 500, 502, 503, 504])
async def test_any_other_answer_is_no_reason_to_give_events_up(
    recorder: Recorder, recorded: MeterClient, status: int
) -> None:
    recorder.status, recorder.body = status, b"<html>"
    with pytest.raises(MeterUnavailable, match=f"{status}, without saying why"):
        await recorded.ingest(b"[]")


async def test_a_meter_that_is_not_there_is_unavailable() -> None:
    client = MeterClient(f"http://127.0.0.1:{free_port()}", "")
    for call in (client.ping(), client.ingest(b"[]"), client.query("runs", start=0, end=SECOND)):
        with pytest.raises(MeterUnavailable, match="ConnectError"):
            await call
    await client.aclose()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"data": 5}',
        b'{"data": [[]]}',
        b'{"data": [{"value": "x", "windowStart": "2026-03-10T12:00:00Z", "windowEnd": "2026-03-10T12:00:00Z"}]}',
        b'{"data": [{"value": 1.5, "windowStart": "2026-03-10T12:00:00Z", "windowEnd": "2026-03-10T12:00:00Z"}]}',
        b'{"data": [{"value": Infinity, "windowStart": "2026-03-10T12:00:00Z", "windowEnd": "2026-03-10T12:00:00Z"}]}',
        b'{"data": [{"value": 1, "windowStart": "noon", "windowEnd": "2026-03-10T12:00:00Z"}]}',
    ],
)
async def test_an_answer_that_makes_no_sense_is_an_unavailable_meter(
    recorder: Recorder, recorded: MeterClient, body: bytes
) -> None:
    recorder.status, recorder.body = 200, body
    with pytest.raises(MeterUnavailable, match="not one of OpenMeter's"):
        await recorded.query("runs", start=0, end=SECOND)


async def test_a_value_that_openmeter_writes_as_a_float_is_exact(recorder: Recorder, recorded: MeterClient) -> None:
    row = {"value": 1.2e6, "windowStart": "2026-03-10T12:00:00Z", "windowEnd": "2026-03-10T13:00:00+00:00"}
    recorder.status = 200
    recorder.body = json.dumps(
        {"data": [{**row, "subject": None, "groupBy": {"subject": "ten_1", "model": None}}]}
    ).encode()
    (found,) = await recorded.query("runs", start=NOON, end=NOON + SECOND)
    assert found == Row(1_200_000, NOON, NOON + 3600 * SECOND, "ten_1", {"model": ""})


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("meter", ""),
        ("ftp://meter", ""),
        ("http://", ""),
        ("http://[::1", ""),
        ("http://m:99999", ""),
        ("http://m", "é"),
    ],
)
def test_a_setting_that_can_not_be_used_is_refused_at_once(url: str, token: str) -> None:
    with pytest.raises(Unprocessable, match="KGENTS_METER_URL"):
        MeterClient(url, token)


async def test_a_meter_whose_certificate_an_authority_of_our_own_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with replying(lambda _asked: Reply(204, ""), authority.server("localhost", 1)) as url:
        client = MeterClient(url.replace("127.0.0.1", "localhost"), "secret")
        try:
            await client.ingest(orjson.dumps([event("x", 1)]))
        finally:
            await client.aclose()


def test_authorities_that_can_not_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    with pytest.raises(Unprocessable, match=r"absent\.pem, which SSL_CERT_FILE names"):
        MeterClient("https://meter.example.com", "secret")


async def test_the_embedded_meter_is_sent_to_and_queried(client: MeterClient) -> None:
    subject = uuid4().hex
    await client.ingest(orjson.dumps([event(uuid4().hex, 2**60, subject), event(uuid4().hex, 1, subject)]))
    rows = await client.query(
        "input_tokens",
        start=NOON,
        end=NOON + 3600 * SECOND,
        window="HOUR",
        subjects=[subject],
        group_by=["subject", "model"],
    )
    assert rows == [Row(2**60 + 1, NOON, NOON + 3600 * SECOND, subject, {"model": "m"})]


async def test_the_embedded_meter_refuses_a_bad_event_and_an_unknown_meter(client: MeterClient) -> None:
    with pytest.raises(MeterRefused, match=r"data\.quantity must be a whole number"):
        await client.ingest(orjson.dumps([event("x", -1)]))
    with pytest.raises(MeterRefused, match="no meter 'nothing'"):
        await client.query("nothing", start=0, end=SECOND)


async def test_a_ping_takes_milliseconds(client: MeterClient) -> None:
    assert 0 < await client.ping() < 5000


async def test_a_wrong_token_is_no_reason_to_give_events_up(shared_meter: MeterProcess) -> None:
    client = MeterClient(shared_meter.url, "wrong")
    with pytest.raises(MeterUnavailable, match="401"):
        await client.ingest(orjson.dumps([event("x")]))
    await client.aclose()
