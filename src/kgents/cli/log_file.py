"""The log file of a process of `kgents up`: JSON lines, in a bounded number of files of a bounded size."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MAX_BYTES = 16 * 1024 * 1024  # after which the file becomes NAME.1.jsonl, and a new one begins
OLDER = 3  # files that are kept beside it


class _Rotated(io.RawIOBase):
    """Writes to `descriptor`, and moves on to a new file by itself: whoever writes a line never loses one by that.
    Descriptors of `others`, such as that of stderr, move along.
    """

    def __init__(self, path: Path, descriptor: int, others: tuple[int, ...]) -> None:
        self._path = path
        self._descriptor = descriptor
        self._others = others
        self._size = os.fstat(descriptor).st_size
        self._lock = threading.Lock()

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        view = memoryview(data).cast("B")
        written = 0
        with self._lock:
            while written < len(view):
                written += os.write(self._descriptor, view[written:])
            self._size += written
            if self._size >= MAX_BYTES:
                self._size = 0
                with contextlib.suppress(OSError):  # then this one grows for as long again
                    self._rotate()
        return written

    def _rotate(self) -> None:
        names = [*older(self._path), self._path]
        for older_one, newer in itertools.pairwise(names):
            if newer.exists():
                newer.replace(older_one)
        fresh = open_append(self._path)
        for descriptor in (self._descriptor, *self._others):
            os.dup2(fresh, descriptor)
        os.close(fresh)


def open_append(path: Path) -> int:
    """A descriptor of a log file that only its owner may read; what is written goes to its end."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def rotated(path: Path, descriptor: int, *others: int) -> TextIO:
    """A text stream to the log file at `path`, which is open as `descriptor` (and as `others`)."""
    # Without a buffer of its own: a line is in the file once it was written.
    raw: Any = _Rotated(path, descriptor, others)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)


def older(path: Path) -> list[Path]:
    """Where what a log file held before is, oldest first, whether there is any or not."""
    return [path.with_name(f"{path.stem}.{number}.jsonl") for number in range(OLDER, 0, -1)]


class Tail:
    """A log file from its oldest line on, as it grows and is rotated."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rest = b""
        self._waiting = self._newer_than(None)

    def lines(self) -> Iterator[str]:
        """The whole lines that were written since the last call."""
        self._waiting = self._waiting or self._newer_than(None)
        while self._waiting:
            handle = self._waiting[0]
            # Looked at first: what is written before the file is rotated is then read below.
            newer = self._newer_than(handle) if len(self._waiting) == 1 else []
            for line in handle:
                self._rest += line
                if self._rest.endswith(b"\n"):
                    yield self._rest.decode(errors="replace").rstrip("\n")
                    self._rest = b""
            self._waiting += newer
            if len(self._waiting) == 1:
                return
            self._waiting.pop(0).close()

    def close(self) -> None:
        """Close the files."""
        for handle in self._waiting:
            handle.close()

    def _newer_than(self, last: io.BufferedReader | None) -> list[io.BufferedReader]:
        """The files that came after that one, oldest first; all of them where it is gone or there is none."""
        stop = os.fstat(last.fileno()).st_ino if last else -1
        found: dict[int, io.BufferedReader] = {}
        # The newest first: what is rotated meanwhile is then met twice, and not missed.
        for path in (self.path, *reversed(older(self.path))):
            try:
                handle = path.open("rb")
            except FileNotFoundError:
                continue
            inode = os.fstat(handle.fileno()).st_ino
            if inode == stop or inode in found:
                handle.close()
            else:
                found[inode] = handle
            if inode == stop:
                break
        return list(reversed(found.values()))
