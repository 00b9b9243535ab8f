"""A process that has `kgents` imported, and forks for each command that the tests run: importing is most of the time
that a command takes, and the tests run hundreds. What a command does is the same, in a process of its own.

`python -m tests.support.warm NUMBER` serves a listening Unix socket that it has as that file descriptor, to the end of
its input. A connection brings a request as JSON, with the files of the command's input, output and errors, and ends
with the command's exit status.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

PATIENCE = 60  # seconds for a command
_REQUEST = 2**20  # bytes, more than any
_FILES = 3
_OF_PYTHON = ("PYTHON", "COVERAGE", "LANG", "LC_", "TZ")  # beginnings of variables that it reads as it starts


def can_run(environment: Mapping[str, str]) -> bool:
    """Whether a command with these variables does here what it does in a Python of its own."""
    names = {name for name, value in environment.items() if os.environ.get(name) != value}
    return not os.environ.get("COVERAGE_PROCESS_START") and not any(name.startswith(_OF_PYTHON) for name in names)


def run(arguments: Sequence[str], data: bytes, environment: Mapping[str, str]) -> tuple[int, bytes, bytes]:
    """Run `kgents` with these arguments, input and variables; its exit status, output and errors.

    Raises ConnectionError when the command was killed for taking too long.
    """
    request = {"arguments": arguments, "environment": environment, "folder": str(Path.cwd())}
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        given.write(data)
        given.seek(0)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(_address())
            files = [file.fileno() for file in (given, said, complained)]
            socket.send_fds(connection, [b"{"], files)
            connection.sendall(json.dumps(request).encode()[1:])
            connection.shutdown(socket.SHUT_WR)
            status = connection.recv(100)
        if not status:
            raise ConnectionError(f"kgents {' '.join(arguments)} did not end within {PATIENCE} s")
        for file in (said, complained):
            file.seek(0)
        return int(status), said.read(), complained.read()


_starting = threading.Lock()


def _address() -> str:
    with _starting:
        return _started()


@cache
def _started() -> str:
    folder = tempfile.TemporaryDirectory(prefix="kgents-warm-")
    address = f"{folder.name}/socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(100)
        number = listener.fileno()
        command = [sys.executable, "-m", "tests.support.warm", str(number)]
        # A group of its own: a Ctrl-C on the terminal of the tests is theirs.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[number], start_new_session=True)

    def stop() -> None:
        process.communicate()  # ends its input
        folder.cleanup()

    atexit.register(stop)
    return address


def _command(listener: socket.socket) -> list[str]:
    """Serve to the end of the input. In the process of each command it returns, with the command's arguments."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks what became of those that serve a connection
    while 0 not in select.select([0, listener.fileno()], [], [])[0]:
        connection, _ = listener.accept()
        if not os.fork():
            return _forked(listener, connection)
        connection.close()
    os._exit(0)


def _forked(listener: socket.socket, connection: socket.socket) -> list[str]:
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    begun, files, _, _ = socket.recv_fds(connection, _REQUEST, _FILES)
    while part := connection.recv(_REQUEST):
        begun += part
    request = json.loads(begun)
    child = os.fork()
    if not child:
        connection.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        return list(request["arguments"])
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.alarm(PATIENCE)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if signal.alarm(0):
        connection.sendall(str(status).encode())
    os._exit(0)


if __name__ == "__main__":
    from kgents.cli.main import main

    # What most commands import.
    for name in (
        "httpcore2",
        "kgents.cli.client",
        "kgents.cli.output",
        "rich.console",
        "rich.table",
        "typer._adapters",
    ):
        importlib.import_module(name)

    main(_command(socket.socket(fileno=int(sys.argv[1]))))
