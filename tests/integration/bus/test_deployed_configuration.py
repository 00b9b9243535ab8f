"""nats-server's configuration as it is deployed to a cluster: three real servers, TLS, and what each user may do."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path

import nats
import pytest
from nats.errors import Error
from pydantic import SecretStr

from cluster.pki import authority
from kgents.bus import admin, erased
from kgents.bus.backup import back_up
from kgents.bus.connection import trusting
from kgents.bus.monitor import healthy
from kgents.bus.nats import Bus
from kgents.bus.server import find_binary
from kgents.bus.stored_events import erase_events, events_of
from kgents.bus.streams import CONTROL_SUBJECT, RUNS_SUBJECT, USAGE_STREAM, USAGE_SUBJECT
from kgents.clock import SystemClock
from kgents.config import Settings
from tests.support.ports import free_port
from tests.support.process import ServerProcess
from tests.support.waiting import eventually

COMPONENTS = Path(__file__).parents[3] / "deploy" / "components"
USERS = ("cluster", "system", "api", "worker", "backup")
HOST = "127.0.0.1"


class Deployed:
    """Three servers with the deployed configuration; only addresses and folders are this machine's."""

    def __init__(self, folder: Path, *, tls: bool) -> None:
        self.ca = folder / "ca.crt"
        self._folder = folder
        self._ports = [(free_port(), free_port(), free_port()) for _ in range(3)]
        self._processes: list[ServerProcess] = []
        authority("test", self.ca).issue(folder / "tls", ("nats", ""), [IPv4Address(HOST)])
        for name in ("nats/nats.conf", "nats/tls.conf", "nats/cluster-tls.conf", *self._tls_files(tls)):
            text = (COMPONENTS / name).read_text().replace("/etc/nats-tls", str(folder))
            (folder / Path(name).name).write_text(text)
        scheme = "tls" if tls else "nats"
        self.urls = [f"{scheme}://{HOST}:{client}" for client, _, _ in self._ports]
        self.monitors = [f"http://{HOST}:{monitor}" for _, monitor, _ in self._ports]

    @staticmethod
    def _tls_files(tls: bool) -> list[str]:
        return ["nats-tls/tls.conf", "nats-tls/cluster-tls.conf"] if tls else []

    def start(self) -> None:
        routes = {
            f"NATS_ROUTE_{index}": f'"nats://cluster:{password("cluster")}@{HOST}:{port}"'
            for index, (_, _, port) in enumerate(self._ports)
        }
        passwords = {f"NATS_{user.upper()}_PASSWORD": f'"{password(user)}"' for user in USERS}
        whole = (self._folder / "nats.conf").read_text()
        for index, (client, monitor, route) in enumerate(self._ports):
            text = whole.replace("/data", str(self._folder / f"data-{index}"))
            for wanted, port in (("4222", client), ("8222", monitor), ("6222", route)):
                assert f"0.0.0.0:{wanted}" in text
                text = text.replace(f"0.0.0.0:{wanted}", f"{HOST}:{port}")
            config = self._folder / f"nats-{index}.conf"
            config.write_text(text)
            log = self._folder / f"nats-{index}.log"
            environment = {"POD_NAME": f"nats-{index}", **routes, **passwords}
            self._processes.append(ServerProcess([find_binary(), "-c", config], log, environment=environment))

    def stop(self) -> None:
        for process in self._processes:
            process.stop(signal.SIGKILL)

    async def healthy(self) -> bool:
        return all([await asyncio.to_thread(healthy, url) for url in self.monitors])

    def settings(self, user: str, ca: Path | None) -> Settings:
        return Settings(
            nats_url=",".join(self.urls),
            nats_user=user,
            nats_password=SecretStr(password(user)),
            nats_ca_file=ca,
            nats_replicas=3,
        )


def password(user: str) -> str:
    return f"{user}-0123456789abcdef"


@asynccontextmanager
async def running(folder: Path, *, tls: bool) -> AsyncIterator[Deployed]:
    servers = Deployed(folder, tls=tls)
    servers.start()
    try:
        await eventually(servers.healthy, what="three servers are healthy", seconds=30)
        yield servers
    finally:
        servers.stop()


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
async def deployed(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Deployed]:
    async with running(tmp_path, tls=request.param) as servers:
        yield servers


@pytest.fixture
async def tls(tmp_path: Path) -> AsyncIterator[Deployed]:
    async with running(tmp_path, tls=True) as servers:
        yield servers


@asynccontextmanager
async def bus_of(servers: Deployed, user: str, ca: Path | None) -> AsyncIterator[Bus]:
    bus = Bus(servers.settings(user, ca), SystemClock())
    await bus.start()
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def connected(servers: Deployed, user: str) -> AsyncIterator[Bus]:
    async with bus_of(servers, user, servers.ca) as bus:
        await eventually(lambda: bus.state.connected, what=f"{user} is connected ({bus.state.error})", seconds=30)
        yield bus


async def test_three_servers_keep_what_the_worker_publishes(deployed: Deployed, tmp_path: Path) -> None:
    async with connected(deployed, "worker") as bus:
        acks = await bus.publish_many(USAGE_SUBJECT, [(f"u{number}", b"usage") for number in range(100)])
        assert not [ack for ack in acks if isinstance(ack, Exception)]
        await bus.publish(RUNS_SUBJECT, b"run")
    copied = await back_up(deployed.settings("backup", deployed.ca), tmp_path / "copy", lambda _copied: None)
    assert {each.stream: each.messages for each in copied}[USAGE_STREAM] == 100


@pytest.mark.parametrize("user", ["api", "worker"])
async def test_who_takes_up_a_run_may_read_its_last_event(tls: Deployed, user: str) -> None:
    async with connected(tls, user) as bus:
        await bus.publish("kgents.events.run_1", b"[1]")
        found = await bus.last_event("run_1")
    assert found is not None
    assert found[1] == b"[1]"


async def test_the_user_for_copies_may_erase_events_and_list_who_was_erased(tls: Deployed) -> None:
    async with connected(tls, "worker") as bus:
        await bus.publish("kgents.events.run_1", b"[]")
        async with admin.connected(tls.settings("backup", tls.ca)) as client:
            assert await erase_events(client, ["run_1"]) == 1
            await erased.remember(client, "ten_1", 7)
            assert await erased.remembered(client) == {"ten_1": 7}
            assert (await admin.info(client, erased.STREAM))["config"]["num_replicas"] == 3
            assert [message async for message in events_of(client, "run_1")] == []


async def test_a_client_that_trusts_another_authority_does_not_connect(tls: Deployed, tmp_path: Path) -> None:
    other = tmp_path / "other.crt"
    authority("other", other)
    async with bus_of(tls, "worker", other) as bus:
        await eventually(lambda: "certificate verify failed" in (bus.state.error or ""), what="it says why not")
        assert not bus.state.connected


async def test_a_server_with_tls_takes_no_password_in_the_clear(tls: Deployed) -> None:
    tls.urls = [url.replace("tls://", "nats://") for url in tls.urls]
    async with bus_of(tls, "worker", None) as bus:
        await eventually(lambda: "certificate" in (bus.state.error or ""), what="it says why not")


DELETE = f"$JS.API.STREAM.DELETE.{USAGE_STREAM}"
ALLOWED = {
    "api": {"kgents.events.run_1", CONTROL_SUBJECT},
    "worker": {"kgents.events.run_1", CONTROL_SUBJECT, USAGE_SUBJECT, RUNS_SUBJECT},
    "backup": {DELETE},
}
NOBODYS = "nobodys"
SUBJECTS = ["kgents.events.run_1", CONTROL_SUBJECT, USAGE_SUBJECT, RUNS_SUBJECT, "something", DELETE]


@pytest.mark.parametrize("user", ALLOWED)
async def test_a_user_may_publish_what_it_needs_to_and_nothing_else(tls: Deployed, user: str) -> None:
    refused = await violations(tls, user, lambda client: [client.publish(subject, b"x") for subject in SUBJECTS])
    assert {subject for subject in SUBJECTS if subject.lower() not in refused} == ALLOWED[user]


@pytest.mark.parametrize("user", ALLOWED)
async def test_no_user_may_read_what_is_of_all(tls: Deployed, user: str) -> None:
    subjects = {">", "kgents.>", "$SYS.>", USAGE_SUBJECT}
    assert await violations(tls, user, lambda client: [client.subscribe(each) for each in subjects]) == {
        each.lower() for each in subjects
    }


async def violations(servers: Deployed, user: str, act: Callable[[nats.NATS], list]) -> set[str]:
    """The subjects that the server refuses a user, in small letters, as nats-py tells of them."""
    found: set[str] = set()

    async def failed(error: Exception) -> None:
        text = str(error)
        if "permissions violation" in text.lower():
            found.add(text.rpartition(' to "')[2].rstrip("\"' "))

    client = await nats.connect(
        servers.urls, user=user, password=password(user), tls=trusting(servers.ca), error_cb=failed
    )
    for each in act(client):
        await each
    await client.publish(NOBODYS)
    await eventually(lambda: NOBODYS in found, what="the server has seen everything")
    found.discard(NOBODYS)
    with contextlib.suppress(Error):
        await client.close()
    return found
