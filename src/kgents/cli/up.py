"""`kgents up`: everything on one machine, with one command."""

from __future__ import annotations

import errno
import fcntl
import gc
import json
import os
import secrets
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from kgents.cli import context as contexts
from kgents.cli.output import note
from kgents.errors import KgentsError


class CannotStart(KgentsError):
    """`kgents up` can't start; the detail says what to do."""

    code = "cannot-start"


@dataclass(frozen=True, slots=True)
class DataFolder:
    """The folder that holds everything that `kgents up` keeps. Only its owner may read it."""

    path: Path

    def lock(self) -> TextIO:
        """Take the folder for this process, until it ends. Raises CannotStart when another has it."""
        self._make()
        handle = (self.path / "lock").open("a+")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            owner = handle.read().strip() or "unknown"
            raise CannotStart(
                f"Another kgents up (pid {owner}) is running on the data folder {self.path}. Stop it, or give this one "
                "a folder of its own with --data."
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        return handle

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self.path / "logs").mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise CannotStart(
                f"The data folder {self.path} can't be made: {error.strerror}. Choose another with --data."
            ) from error

    def secrets(self) -> dict[str, str]:
        """The folder's own secrets, made once: the pepper of API keys and the embedded meter's token."""
        path = self.path / "secrets.json"
        found = self.read(path)
        if found is not None:
            return found
        made = {"pepper": secrets.token_hex(32), "meter_token": secrets.token_urlsafe(32)}
        self.keep(path, made)
        return made

    def read(self, path: Path) -> dict[str, str] | None:
        """What `keep` wrote, or None. Raises CannotStart when the file is damaged."""
        if not path.exists():
            return None
        try:
            found: dict[str, str] = json.loads(path.read_text())
        except ValueError as error:
            raise CannotStart(f"{path} is damaged. Restore it from a backup of the data folder.") from error
        return found

    def keep(self, path: Path, values: dict[str, str]) -> None:
        """Write a file that only its owner may read, whole or not at all."""
        partial = path.with_suffix(".partial")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            json.dump(values, handle)
            handle.flush()
            os.fsync(handle.fileno())
        partial.replace(path)

    def log_file(self, process: str) -> Path:
        """Where a process's log goes."""
        return self.path / "logs" / f"{process}.jsonl"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, held by the supervisor, so that a client that comes while a process restarts waits and is
    served.

    Raises CannotStart when the port is in use or may not be used, or the host is not an address of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # asyncio sends answers without delay only on sockets that say that they are TCP's.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
        listener.set_inheritable(True)
    except (OSError, UnicodeError) as error:  # the latter for a host that can't be a name
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        is_host = isinstance(error, UnicodeError | socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        choose = (
            "Choose an address of this machine with --host, such as 127.0.0.1."
            if is_host
            else "Choose another port with --port (0 takes a free one)."
        )
        raise CannotStart(f"Can't listen on {host}:{port}: {reason}. {choose}") from error
    return listener


def run(data: Path, host: str, port: int, *, as_json: bool) -> None:
    """Start everything, say how to use it, and keep it running until Ctrl-C. Raises CannotStart."""
    folder = DataFolder(data.resolve())
    lock = folder.lock()
    listener = listen(host, port)
    # The expensive imports, once for all processes, while the folder is already ours and the port is held. All that
    # they make stays: looking through it for garbage while it grows would be a seventh of the time to the first answer,
    # and frozen it stays shared with the processes that are forked from this one.
    gc.disable()
    from kgents.cli.one_machine import OneMachine

    gc.freeze()
    gc.enable()
    system = OneMachine(folder, host, listener)
    try:
        facts = system.start()
        if not as_json:
            _remember(facts)
        _say(facts, as_json=as_json, logs=folder.path / "logs")
        system.run()
    finally:
        system.stop()
        lock.close()


def _remember(facts: dict[str, Any]) -> None:
    """Let the other commands find this kgents, if there is a place to keep that."""
    try:
        contexts.save(contexts.Context("local", facts["url"], facts["api_key"], facts["admin_key"]))
    except contexts.NoContext as error:
        note(f"kgents: other commands can't find this kgents by themselves: {error.detail}")


def _say(facts: dict[str, Any], *, as_json: bool, logs: Path) -> None:
    if as_json:
        print(json.dumps(facts), flush=True)  # noqa: T201 - the command's output
        return
    url, key = facts["url"], facts["api_key"]
    body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "Hello, kgents"}]})
    python = (
        f'from openai import OpenAI; print(OpenAI(base_url="{url}/v1", api_key="{key}").chat.completions.create('
        'model="echo", messages=[{"role": "user", "content": "Hello, kgents"}]).choices[0].message.content)'
    )
    lines = f"""
kgents is up at {url}   (API reference: {url}/docs, console: {url}/console, health: {url}/health/saas)
API key of the tenant "default": {key}

Try it:
  curl {url}/v1/chat/completions -H "Authorization: Bearer {key}" -H "Content-Type: application/json" -d '{body}'
  python -c '{python}'
  kgents chat echo "Hello, kgents"

Logs are in {logs}. Ctrl-C stops everything; the next kgents up carries on.
"""
    sys.stdout.write(lines)
    sys.stdout.flush()
