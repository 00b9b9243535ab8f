"""Copies of streams, with their messages, and what brings them back.

By JetStream's own snapshots (https://docs.nats.io/reference/jetstream/api/stream/snapshot), in the form that the `nats`
command writes and reads: for each stream a folder with `backup.json` and `stream.tar.s2`. Only
the user who makes a copy may read it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from kgents.bus.admin import SILENCE, api, connected, info
from kgents.bus.jetstream import new_inbox, status_of
from kgents.bus.model import BusUnavailable
from kgents.bus.streams import EVENTS_STREAM, RUNS_STREAM, USAGE_STREAM
from kgents.config import Settings
from kgents.errors import Conflict, Unprocessable

STREAMS = (USAGE_STREAM, RUNS_STREAM, EVENTS_STREAM)
_WANTED = (USAGE_STREAM, RUNS_STREAM)
"""What every copy has. Run events are in it where they are in files; several servers keep them in memory (streams.py),
which JetStream can't bring back.
"""
CHUNK = 128 * 1024
TRIES = 10
PAUSE = 0.5  # seconds between them
_NAME_IN_USE = 10130
_CONFIGURATION, _DATA = "backup.json", "stream.tar.s2"


class Copied(NamedTuple):
    """A stream that was copied or brought back."""

    stream: str
    messages: int
    bytes: int


async def back_up(settings: Settings, folder: Path, tell: Callable[[Copied], None]) -> list[Copied]:
    """Copy all streams that are in files into `folder`, which must not be there yet: it is there once it is whole, and
    on the disk.

    Raises Conflict for a folder that is there, BusUnavailable.
    """
    if folder.exists():  # noqa: ASYNC240 - this process does nothing else meanwhile
        raise Conflict(f"{folder} is there already. Give a new folder: a copy is never changed.", code="backup-exists")
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    found = []
    try:
        unfinished.mkdir(parents=True, mode=0o700)
        async with connected(settings) as client:
            for stream in STREAMS:
                if (await info(client, stream)).get("config", {}).get("storage") == "memory":
                    continue
                (unfinished / stream).mkdir(mode=0o700)
                copied = await _snapshot(client, stream, unfinished / stream)
                tell(copied)
                found.append(copied)
        sums = {
            str(path.relative_to(unfinished)): _sum(path) for path in sorted(unfinished.rglob("*")) if path.is_file()
        }
        _write(unfinished / "sums.json", orjson.dumps(sums, option=orjson.OPT_INDENT_2))
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _flush(folder.parent)
    return found


async def restore(settings: Settings, folder: Path, tell: Callable[[Copied], None]) -> list[Copied]:
    """Bring the streams of a copy back, in the place of empty ones. Raises Unprocessable for a copy that is not whole,
    Conflict for a stream that has messages, BusUnavailable.

    The API and the workers may run meanwhile. One that misses a stream makes it again, which JetStream does not bear
    while it restores it; what was made so is taken away, and the copy brought again.
    """
    check(folder)
    async with connected(settings) as client:
        streams = [stream for stream in STREAMS if (folder / stream).exists()]
        for stream in streams:
            await _check_empty(client, stream)
        found = []
        for stream in streams:
            restored = await _restore(client, stream, folder / stream)
            tell(restored)
            found.append(restored)
        return found


def check(folder: Path) -> None:
    """Raise Unprocessable unless a copy is whole, to the byte."""
    try:
        sums = orjson.loads((folder / "sums.json").read_bytes())
        if not isinstance(sums, dict):
            raise ValueError("its sums.json holds no sums")
        wrong = [name for name, value in sums.items() if _sum(folder / name) != value]
        missing = [stream for stream in _WANTED if f"{stream}/{_DATA}" not in sums]
    except (OSError, ValueError) as error:
        raise Unprocessable(f"{folder} is no copy of the streams: {error}.", code="backup") from None
    if wrong or missing:
        raise Unprocessable(
            f"The copy in {folder} is damaged: {', '.join(wrong or missing)}. Take another one.", code="backup-damaged"
        )


async def _snapshot(client: Client, stream: str, folder: Path) -> Copied:
    inbox = new_inbox()
    chunks: asyncio.Queue[Msg] = asyncio.Queue()

    async def arrived(message: Msg) -> None:
        chunks.put_nowait(message)

    subscription = await client.subscribe(inbox, cb=arrived)
    request = {"deliver_subject": inbox, "no_consumers": False, "chunk_size": CHUNK, "jsck": True}
    made = await api(client, f"STREAM.SNAPSHOT.{stream}", request)
    if "config" not in made:
        raise BusUnavailable(f"there is no stream {stream} to copy.")
    size = 0
    with _create(folder / _DATA) as file:
        while True:
            async with asyncio.timeout(SILENCE):
                message = await chunks.get()
            if not message.data:
                break
            size += file.write(message.data)
            if message.reply:
                await client.publish(message.reply)  # until then the server sends no more than a window
        file.flush()
        os.fsync(file.fileno())
    await subscription.unsubscribe()
    status = status_of(message)
    if status not in (None, "204"):
        raise BusUnavailable(f"the copy of {stream} broke off (status {status}).")
    _write(folder / _CONFIGURATION, orjson.dumps({"config": made["config"], "state": made["state"]}))
    return Copied(stream, made["state"]["messages"], size)


async def _check_empty(client: Client, stream: str) -> None:
    state = (await info(client, stream)).get("state")
    if state is not None and state["messages"]:
        raise Conflict(
            f"The stream {stream} has {state['messages']} messages, which a restore would replace. If they are "
            f"not needed, delete it first (nats stream rm {stream}).",
            code="stream-not-empty",
        )


class _MadeAgain(Exception):
    """Somebody made the stream while it was being restored."""


async def _restore(client: Client, stream: str, folder: Path) -> Copied:
    for _ in range(TRIES):
        await _check_empty(client, stream)  # again, as close as can be to the deletion: something may have come
        await api(client, f"STREAM.DELETE.{stream}")
        try:
            return await _bring(client, stream, folder)
        except (_MadeAgain, NoRespondersError):  # the latter where JetStream has given it up already
            await asyncio.sleep(PAUSE)
    raise BusUnavailable(
        f"the stream {stream} was made again {TRIES} times while it was being restored. Stop the API and the workers, "
        "and restore it then."
    )


async def _bring(client: Client, stream: str, folder: Path) -> Copied:
    copied = orjson.loads((folder / _CONFIGURATION).read_bytes())
    begun = await api(client, f"STREAM.RESTORE.{stream}", copied, none=_NAME_IN_USE)
    _check_taken(stream, begun)
    target = begun["deliver_subject"]
    size = 0
    with (folder / _DATA).open("rb") as file:
        while chunk := file.read(CHUNK):
            answer = await client.request(target, chunk, timeout=SILENCE)
            _check_taken(stream, orjson.loads(answer.data or b"{}"))
            size += len(chunk)
    done = orjson.loads((await client.request(target, b"", timeout=SILENCE)).data)
    _check_taken(stream, done)
    return Copied(stream, done["state"]["messages"], size)


def _check_taken(stream: str, answer: dict[str, Any]) -> None:
    if error := answer.get("error"):
        why = str(error.get("description"))
        if error.get("err_code") == _NAME_IN_USE or f"({_NAME_IN_USE})" in why:  # as such, or as the cause of another
            raise _MadeAgain
        raise BusUnavailable(f"JetStream refused the copy of {stream} ({why}).")


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _create(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _write(path: Path, data: bytes) -> None:
    with _create(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
