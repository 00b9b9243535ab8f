"""A server process that a test starts, and that ends with it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class ServerProcess:
    """One process with its output in a file. `last_will` is the signal it gets should the test run itself be killed."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log_file: Path,
        *,
        user: int | None = None,
        group: int | None = None,
        last_will: signal.Signals = signal.SIGKILL,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment` is added to what this process has."""
        self._log_file = log_file
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                user=user,
                group=group,
                extra_groups=[] if user is not None else None,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                preexec_fn=_leave_will(last_will),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        """The last lines of its output."""
        return self._log_file.read_text(errors="replace")[-2000:]

    def is_running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, such as SIGSTOP and SIGCONT, to a running process."""
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = 10.0) -> None:
        """End it by a signal, and by SIGKILL if that took longer than `seconds`. Nothing happens to one that ended."""
        if not self.is_running():
            return
        self._process.send_signal(number)
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _leave_will(last_will: signal.Signals) -> Callable[[], object] | None:
    # Linux sends it when the thread that forked ends (prctl(2)), so only the main thread may leave one.
    libc = _libc
    if libc is None or threading.current_thread() is not threading.main_thread():
        return None
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, last_will)
