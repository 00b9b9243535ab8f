"""The `kgents` command as a user runs it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import warm
from tests.support.waiting import wait_until

COMMAND = [sys.executable, "-m", "kgents.cli.main"]


@dataclass(frozen=True, slots=True)
class Done:
    """What a command that has ended said."""

    status: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def complaint(self) -> str:
        """The one line of a command that was refused (status 1), which tells why."""
        assert self.status == 1, self
        lines = self.stderr.strip().splitlines()
        assert len(lines) == 1, self
        assert lines[0].startswith("kgents: "), self
        return lines[0]


class Cli:
    """Runs `kgents` with a configuration folder and with variables of its own."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = environment

    def __call__(self, *arguments: str | Path, stdin: str | bytes = "", **environment: str) -> Done:
        """Run it to its end."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        given, variables = [str(argument) for argument in arguments], self._env(environment)
        if warm.can_run(variables):
            status, said, complained = warm.run(given, data, variables)
            return Done(status, said.decode(), complained.decode())
        done = subprocess.run([*COMMAND, *given], input=data, capture_output=True, timeout=warm.PATIENCE, env=variables)
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def json(self, *arguments: str | Path, **environment: str) -> Any:
        """The data that a command answers with -o json. Fails unless its status is 0."""
        done = self(*arguments, "-o", "json", **environment)
        assert done.status == 0, done
        return done.json()

    @contextmanager
    def start(self, *arguments: str | Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start it with pipes; it is killed if it still runs at the end of the block."""
        with subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._env(environment),
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def terminal(self, *arguments: str | Path, columns: int = 100, **environment: str) -> Terminal:
        """Start it on a terminal."""
        # Readline exports the size of the terminal that the tests run in, and they may have loaded it.
        usual = {"TERM": "xterm", "COLUMNS": "UNSET", "LINES": "UNSET"}
        return Terminal([*COMMAND, *map(str, arguments)], columns, self._env({**usual, **environment}))

    def _env(self, more: dict[str, str]) -> dict[str, str]:
        given = {**os.environ, "KGENTS_CONFIG_DIR": str(self.folder / "config"), **self.environment, **more}
        return {name: value for name, value in given.items() if value != "UNSET"}


class Terminal:
    """A command on a pseudo-terminal. `chunks` is what came, each with the time (monotonic) of its coming."""

    def __init__(self, command: list[str], columns: int, environment: dict[str, str]) -> None:
        self.chunks: list[tuple[float, str]] = []
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self._process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    @property
    def text(self) -> str:
        return "".join(chunk for _, chunk in self.chunks).replace("\r\n", "\n")

    def type(self, text: str) -> None:
        """Type it once the program waits, as a user does: Python's input() misses a Ctrl-C between prompt and wait."""
        before = ""

        def waits() -> bool:
            nonlocal before
            earlier, before = before, self._switches()
            return earlier == before != ""

        wait_until(waits, what="it waits")
        os.write(self._master, text.encode())

    def _switches(self) -> str:
        """How often the program has waited, if it does now; else nothing."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return status.partition("\nvoluntary_ctxt_switches:")[2] if "\nState:\tS" in status else ""

    def read_until(self, text: str, *, seconds: float = 30.0) -> None:
        """Read until `text` has come. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while text not in self.text:
            if time.monotonic() > deadline or not self._read(deadline - time.monotonic()):
                raise TimeoutError(f"{text!r} did not come; what came: {self.text!r}")

    def end(self, *, seconds: float = 30.0) -> int:
        """Read to its end; its exit status."""
        deadline = time.monotonic() + seconds
        while self._read(max(0.0, deadline - time.monotonic())):
            if time.monotonic() > deadline:
                self._process.send_signal(signal.SIGKILL)
                raise TimeoutError(f"it did not end; what came: {self.text!r}")
        os.close(self._master)
        return self._process.wait(10)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return True
        try:
            found = os.read(self._master, 65_536)
        except OSError:  # Linux' end of file, once nobody holds the other side
            return False
        self.chunks.append((time.monotonic(), found.decode(errors="replace")))
        return bool(found)
