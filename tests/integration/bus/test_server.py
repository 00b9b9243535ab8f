"""The nats-server of `kgents up`: private, durable, where it was before, and never two on one data folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kgents.bus.model import BusUnavailable
from kgents.bus.monitor import healthy, verify_durable
from kgents.bus.nats import Bus
from kgents.bus.server import LocalNats
from kgents.clock import SystemClock
from kgents.config import Settings
from tests.support.replies import Reply, replying
from tests.support.waiting import eventually, wait_until


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalNats]:
    """A server that is prepared, not started."""
    server = LocalNats(tmp_path)
    server.prepare()
    yield server
    server.stop()


def private_files(folder: Path) -> list[Path]:
    return [folder / "nats" / name for name in ("endpoint.json", "nats.conf")]


class TestPrepare:
    def test_what_holds_the_credential_is_for_its_owner_only(self, local: LocalNats, tmp_path: Path) -> None:
        assert [stat.S_IMODE(file.stat().st_mode) for file in private_files(tmp_path)] == [0o600, 0o600]
        assert stat.S_IMODE((tmp_path / "nats").stat().st_mode) == 0o700

    def test_port_and_credential_are_kept(self, local: LocalNats, tmp_path: Path) -> None:
        assert LocalNats(tmp_path).prepare() == local.prepare()

    def test_another_port_is_taken_when_somebody_has_the_kept_one(self, local: LocalNats, tmp_path: Path) -> None:
        before = local.prepare()
        with socket.create_server(("127.0.0.1", int(before.url.rpartition(":")[2]))):
            after = LocalNats(tmp_path).prepare()
        assert after.url != before.url
        assert (after.password, after.monitor_url) == (before.password, before.monitor_url)

    def test_a_damaged_endpoint_file_is_replaced(self, local: LocalNats, tmp_path: Path) -> None:
        (tmp_path / "nats" / "endpoint.json").write_text("{")
        assert LocalNats(tmp_path).prepare().password

    def test_the_password_is_not_in_the_endpoints_repr(self, local: LocalNats) -> None:
        endpoint = local.prepare()
        assert endpoint.password not in repr(endpoint)


class TestRunning:
    def test_it_is_ready_and_durable(self, local: LocalNats) -> None:
        local.spawn()
        local.ready()
        verify_durable(local.prepare().monitor_url)

    def test_the_password_is_neither_in_its_arguments_nor_in_its_logs(self, local: LocalNats, tmp_path: Path) -> None:
        process = local.spawn()
        local.ready()
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        local.stop()
        logs = b"".join(file.read_bytes() for file in (tmp_path / "nats").glob("*.log"))
        assert local.prepare().password.encode() not in arguments + logs

    def test_a_folder_with_unusual_characters(self, tmp_path: Path) -> None:
        server = LocalNats(tmp_path / 'a "quoted" \\ folder $HOME ü')
        server.prepare()
        server.spawn()
        try:
            server.ready()
        finally:
            server.stop()

    async def test_a_bus_stores_and_finds_again_after_a_restart(self, local: LocalNats) -> None:
        endpoint = local.prepare()
        bus = Bus(
            Settings(nats_url=endpoint.url, nats_user=endpoint.user, nats_password=endpoint.password), SystemClock()
        )
        await bus.start()
        for messages in (1, 2):
            local.spawn()
            await eventually(lambda: bus.state.connected)
            await bus.publish("kgents.runs", b"run")
            assert (await bus.pending("KGENTS_RUNS")).messages == messages
            local.stop()
            await eventually(lambda: not bus.state.connected)
        await bus.close()

    def test_a_signal_to_the_terminals_process_group_does_not_reach_it(self, local: LocalNats) -> None:
        assert os.getpgid(local.spawn().pid) != os.getpgid(0)


class TestEnding:
    def test_stop_answers_a_clean_exit(self, local: LocalNats) -> None:
        local.spawn()
        local.ready()
        assert local.stop() in (0, 1)
        assert not healthy(local.prepare().monitor_url)

    def test_stop_ends_a_frozen_server(self, local: LocalNats) -> None:
        process = local.spawn()
        local.ready()
        process.send_signal(signal.SIGSTOP)
        local.stop()
        assert process.poll() is not None

    def test_stop_without_a_server_does_nothing(self, local: LocalNats) -> None:
        assert local.stop() is None

    def test_ready_tells_why_the_server_ended(self, local: LocalNats) -> None:
        with socket.create_server(("127.0.0.1", int(local.prepare().url.rpartition(":")[2]))) as taken:
            assert taken
            local.spawn()
            with pytest.raises(BusUnavailable, match="address already in use"):
                local.ready()

    def test_it_ends_with_its_supervisor(self, tmp_path: Path) -> None:
        pid = supervise_and_die(tmp_path, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid))

    def test_a_leftover_is_stopped_before_another_starts(self, local: LocalNats, tmp_path: Path) -> None:
        leftover = local.spawn()
        local.ready()
        second = LocalNats(tmp_path)
        second.prepare()
        second.spawn()
        try:
            second.ready()
            assert leftover.poll() is not None
        finally:
            second.stop()


class TestVerifyDurable:
    def test_a_server_that_writes_later_is_refused(self, local: LocalNats, tmp_path: Path) -> None:
        config = tmp_path / "nats" / "nats.conf"
        config.write_text(config.read_text().replace("sync_interval: always", "sync_interval: 2m"))
        monitor_url = json.loads((tmp_path / "nats" / "endpoint.json").read_text())["monitor_port"]
        local.spawn()
        local.ready()
        with pytest.raises(BusUnavailable, match="sync_interval: always") as refused:
            verify_durable(f"http://127.0.0.1:{monitor_url}")
        assert refused.value.code == "bus-not-durable"

    def test_a_server_without_jetstream_is_refused(self, local: LocalNats, tmp_path: Path) -> None:
        config = tmp_path / "nats" / "nats.conf"
        config.write_text(config.read_text().partition("jetstream {")[0])
        endpoint = json.loads((tmp_path / "nats" / "endpoint.json").read_text())
        local.spawn()
        local.ready()
        with pytest.raises(BusUnavailable, match="no JetStream"):
            verify_durable(f"http://127.0.0.1:{endpoint['monitor_port']}")

    @pytest.mark.parametrize("varz", [[], "up", {"jetstream": [1]}, {"jetstream": {"config": ["x"]}}])
    def test_what_is_no_nats_servers_answer_is_said(self, varz: object) -> None:
        with (
            replying(lambda _: Reply(200, json.dumps(varz))) as url,
            pytest.raises(BusUnavailable, match="KGENTS_NATS_MONITOR_URL"),
        ):
            verify_durable(url)

    def test_every_server_of_the_list_counts(self, local: LocalNats, free_port: object) -> None:
        local.spawn()
        local.ready()
        with pytest.raises(BusUnavailable, match="does not answer"):
            verify_durable(f"{local.prepare().monitor_url}, http://127.0.0.1:{free_port()}")  # type: ignore[operator]


def supervise_and_die(data_dir: Path, number: signal.Signals) -> int:
    """A supervisor of its own that starts a server and is killed: the server's process id."""
    code = (
        "import sys, time; from pathlib import Path; from kgents.bus.server import LocalNats\n"
        "server = LocalNats(Path(sys.argv[1])); server.prepare(); process = server.spawn(); server.ready()\n"
        "print(process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(data_dir)], stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout
        pid = int(supervisor.stdout.readline())
        supervisor.send_signal(number)
    return pid


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
