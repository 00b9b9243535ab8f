"""The processes of `kgents up`: started in order, restarted when they die, stopped in order.

Everything is imported once, here, and the children are forked from that: the imports are what starting costs. So this
process stays free of threads and of event loops until it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol

import structlog

from kgents.cli.log_file import open_append, rotated
from kgents.errors import KgentsError

log = structlog.get_logger(__name__)

STABLE = 10.0  # seconds after which a process that dies is restarted at once
MAX_BACKOFF = 2.0  # seconds; to start and fail over and over then takes less than half of a core
LOOK_EVERY = 2.0
UNWELL = 10.0  # seconds without working after which a process is started again
_PR_SET_PDEATHSIG = 1


class Child(Protocol):
    """A process under supervision. `name` is how the user knows it."""

    name: str

    def start(self) -> int:
        """Start it; answers its pid."""
        ...

    def on_exit(self, status: int) -> None:
        """Told of its end, with the status that waitpid gave."""
        ...

    def is_well(self) -> bool:
        """Whether it does its work. One that does not for a while is killed, and so started again."""
        ...


@dataclass(slots=True)
class Forked:
    """A child that is a fork of this process. `main` is given a function to call once it is ready."""

    name: str
    main: Callable[[Callable[[], None]], None]
    log_file: Path
    ready_pipe: int = -1
    ready: bool = False

    def start(self) -> int:
        read_end, write_end = os.pipe()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            os.close(read_end)
            os.close(write_end)
            raise
        if pid == 0:
            os.close(read_end)
            self._child(parent, write_end)
        os.close(write_end)
        self._forget_pipe()
        self.ready_pipe, self.ready = read_end, False
        return pid

    def on_exit(self, status: int) -> None:  # noqa: ARG002 - the protocol's
        self._forget_pipe()

    def is_well(self) -> bool:
        return True  # what it depends on is on its health page; starting it again would mend none of that

    def wait_ready(self, deadline: float) -> bool:
        """Wait until the child says that it is ready; False when it ended or `deadline` (monotonic) passed first."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.ready_pipe, selectors.EVENT_READ)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return False
        self.ready = os.read(self.ready_pipe, 1) == b"1"
        return self.ready

    def _forget_pipe(self) -> None:
        if self.ready_pipe >= 0:
            os.close(self.ready_pipe)
            self.ready_pipe = -1

    def _child(self, parent: int, write_end: int) -> NoReturn:
        status = 1
        try:
            # A group of its own: Ctrl-C in the terminal is for the supervisor, which then stops everything in order.
            os.setpgid(0, 0)
            die_with_parent(parent)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            self._redirect()
            self.main(lambda: _say_ready(write_end))
            status = 0
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            log.exception("process failed", process=self.name)
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            os._exit(status)

    def _redirect(self) -> None:
        target = open_append(self.log_file)
        source = os.open(os.devnull, os.O_RDONLY)
        os.dup2(source, 0)
        os.dup2(target, 1)
        os.dup2(target, 2)
        os.close(target)
        os.close(source)
        sys.stdout = rotated(self.log_file, 1, 2)


def call_in_child(work: Callable[[], dict[str, str]]) -> dict[str, str]:
    """What `work` answers, worked out in a forked child: for work that starts threads, which this process may not have
    before it forks its other children. Raises the KgentsError that it raises, and KgentsError when it crashes.
    """
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _answer(work, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    if not said:
        raise KgentsError("A process that prepares the data folder crashed; its output is above.")
    answer: dict[str, dict[str, str]] = json.loads(said)
    if "refused" in answer:
        raise KgentsError(answer["refused"]["detail"], code=answer["refused"]["code"])
    return answer["done"]


def _answer(work: Callable[[], dict[str, str]], write_end: int) -> NoReturn:
    try:
        answer = {"done": work()}
    except KgentsError as error:
        answer = {"refused": {"detail": error.detail, "code": error.code}}
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    with os.fdopen(write_end, "wb") as pipe:
        pipe.write(json.dumps(answer).encode())
    os._exit(0)


def _say_ready(write_end: int) -> None:
    with contextlib.suppress(OSError):
        os.write(write_end, b"1")
        os.close(write_end)


def die_with_parent(parent: int) -> None:
    """Ask Linux to end this process when its parent dies, so that nothing is left behind (prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)


@dataclass(slots=True)
class _Running:
    child: Child
    pid: int
    started: float
    backoff: float = 0.0
    unwell_since: float | None = None
    restart_at: float | None = None


@dataclass(slots=True)
class Supervisor:
    """Keeps children running until it is told to stop. `stop_grace` is how long each gets after SIGTERM, in seconds;
    `started` is told the pids by name whenever a child was started. What can't be done now, because the disk is full or
    memory is short, is tried again.
    """

    stop_grace: float
    started: Callable[[dict[str, int]], None]
    _running: list[_Running] = field(default_factory=list)
    _stopping: bool = False
    _looked: float = 0.0
    _untold: bool = False

    def start(self, child: Child) -> int:
        """Start a child and keep it running; answers its pid."""
        pid = child.start()
        self._running.append(_Running(child, pid, time.monotonic()))
        self.started(self.pids())
        return pid

    def pids(self) -> dict[str, int]:
        """The pids by name."""
        return {running.child.name: running.pid for running in self._running}

    def heed_signals(self) -> None:
        """Have SIGINT and SIGTERM end `run`: from before anybody is told that all is ready."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def run(self) -> None:
        """Restart what dies, until SIGINT or SIGTERM; then stop everything, last started first."""
        while not self._stopping:
            self._reap()
            self._restart()
            self._look_after()
            time.sleep(0.05)
        self.stop()

    def stop(self) -> None:
        """Stop every child, last started first, each with its grace."""
        self._stopping = True
        for running in reversed(self._running):
            self._stop(running)
        self._running.clear()

    def _on_signal(self, _number: int, _frame: object) -> None:
        if self._stopping:
            for running in self._running:
                _kill(running.pid, signal.SIGKILL)
        self._stopping = True

    def _reap(self) -> None:
        for running in self._running:
            if running.restart_at is not None:
                continue
            pid, status = os.waitpid(running.pid, os.WNOHANG)
            if pid == 0:
                continue
            running.child.on_exit(status)
            lived = time.monotonic() - running.started
            running.backoff = 0.0 if lived > STABLE else min(MAX_BACKOFF, running.backoff * 2 or 0.1)
            running.restart_at = time.monotonic() + running.backoff
            log.warning("process ended, restarting", process=running.child.name, status=status, lived=round(lived, 1))

    def _look_after(self) -> None:
        """Now and then, ask each child whether it works, and kill one that has not for a while."""
        now = time.monotonic()
        if now < self._looked + LOOK_EVERY:
            return
        self._looked = now
        for running in self._running:
            if running.restart_at is not None or running.child.is_well():
                running.unwell_since = None
            elif running.unwell_since is None:
                running.unwell_since = now
            elif now - running.unwell_since > UNWELL:
                log.warning("process does not work, starting it again", process=running.child.name)
                running.unwell_since = None
                _kill(running.pid, signal.SIGKILL)

    def _restart(self) -> None:
        for running in self._running:
            if running.restart_at is not None and time.monotonic() >= running.restart_at:
                self._start_again(running)
        if self._untold:
            with contextlib.suppress(OSError):  # then the next turn does it
                self.started(self.pids())
                self._untold = False

    def _start_again(self, running: _Running) -> None:
        try:
            running.pid = running.child.start()
        except (OSError, KgentsError) as error:
            running.backoff = min(MAX_BACKOFF, running.backoff * 2 or 0.1)
            running.restart_at = time.monotonic() + running.backoff
            log.warning("process can't be started, trying again", process=running.child.name, reason=str(error))
            return
        running.started, running.restart_at = time.monotonic(), None
        self._untold = True

    def _stop(self, running: _Running) -> None:
        if running.restart_at is not None:
            return
        _kill(running.pid, signal.SIGTERM)
        deadline = time.monotonic() + self.stop_grace
        while True:
            pid, status = os.waitpid(running.pid, os.WNOHANG)
            if pid:
                running.child.on_exit(status)
                return
            if time.monotonic() > deadline:
                log.warning("process did not stop in time, killing it", process=running.child.name)
                _kill(running.pid, signal.SIGKILL)
                deadline = float("inf")
            time.sleep(0.02)


def _kill(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
