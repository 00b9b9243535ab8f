"""A real Valkey or Redis server for tests, on loopback, keeping nothing on disk."""

from __future__ import annotations

import secrets
import shutil
import signal
import socket
from pathlib import Path

from tests.support.ports import free_port
from tests.support.process import ServerProcess
from tests.support.waiting import wait_until


def find_binary() -> str | None:
    """The server's program, or None when neither Valkey nor Redis is installed."""
    return shutil.which("valkey-server") or shutil.which("redis-server")


class RedisServer:
    """A Valkey or Redis server with a password. It keeps its port over a restart, and nothing else."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.port = free_port()
        self.password = secrets.token_urlsafe(16)
        self.url = f"redis://:{self.password}@127.0.0.1:{self.port}/0"
        self._binary = binary
        self._folder = folder
        self._process: ServerProcess | None = None
        (folder / "redis.conf").write_text(
            f'bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\nsave ""\nappendonly no\n'
        )

    @property
    def process(self) -> ServerProcess:
        """The running process, to signal it."""
        if self._process is None:
            raise RuntimeError("this Redis is stopped")
        return self._process

    def start(self) -> None:
        """Start it, and return once it answers."""
        process = ServerProcess(
            [self._binary, self._folder / "redis.conf", "--dir", self._folder], self._folder / "redis.log"
        )
        self._process = process
        wait_until(lambda: not process.is_running() or self._answers(), what="Redis answers")
        if not process.is_running():
            raise RuntimeError(f"Redis did not start:\n{process.log}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop it; SIGKILL for the hard way."""
        if self._process is not None:
            self._process.stop(number)
            self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self.password}\r\n".encode())
                return connection.recv(16).startswith(b"+OK")
        except OSError:
            return False
