"""A disk whose power is cut: ext4 on a loop device, of which a cut leaves what had reached the device.

What a process wrote and did not fsync is in the page cache of the file system, not in the device's file. So a copy of
that file, taken while every process stands still, is what a machine would find after its power came back. It models a
lost page cache; not torn sectors, and not disks that lie.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.tools import left_out
from tests.support.waiting import wait_until

REFILL = 0.05  # seconds
SIZE = 1024**3  # bytes; the file is sparse


class Disk:
    """A mounted disk. `path` stays the same over every cut."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "disk"
        self.path.mkdir()
        self._image = folder / "0.img"
        with self._image.open("wb") as file:
            file.truncate(SIZE)
        _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", str(self._image))
        self.mounted = False
        self._mount()

    def cut(self, pids: Iterable[int]) -> None:
        """Cut the power of the processes: they are dead then, and the disk has what had reached it."""
        pids = list(pids)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        left = self._image.with_name(f"{int(self._image.stem) + 1}.img")
        _run("cp", "--sparse=auto", str(self._image), str(left))
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(_lives(pid) for pid in pids), what="the processes are dead")
        self.unmount()
        self._image.unlink()
        self._image = left
        self._mount()

    def unmount(self) -> None:
        """Take it away."""
        if self.mounted:
            wait_until(self._unmounted, what="nobody uses the disk")
            self.mounted = False

    def _unmounted(self) -> bool:
        return subprocess.run(["umount", self.path], check=False, capture_output=True).returncode == 0

    def _mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.path))
        self.mounted = True


@contextmanager
def a_disk() -> Iterator[Disk]:
    """A disk for a while; the test is left out where none can be mounted."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        left_out("power cuts need root, a loop device and mkfs.ext4; `sudo apt-get install e2fsprogs` brings that")
    folder = Path(tempfile.mkdtemp(prefix="kgents-disk-"))
    folder.chmod(0o755)  # PostgreSQL runs as a user of its own
    disk = Disk(folder)
    try:
        yield disk
    finally:
        disk.unmount()
        shutil.rmtree(folder)


@contextmanager
def a_small_disk(size: str) -> Iterator[SmallDisk]:
    """A disk that is easily full (`size` as mount takes it); the test is left out where none can be mounted."""
    if os.geteuid() != 0:
        left_out("a disk of its own needs root")
    folder = Path(tempfile.mkdtemp(prefix="kgents-disk-"))
    _run("mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(folder))
    try:
        yield SmallDisk(folder)
    finally:
        wait_until(lambda: subprocess.run(["umount", folder], check=False).returncode == 0, what="nobody uses the disk")
        folder.rmdir()


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A mounted disk in memory."""

    path: Path

    @contextmanager
    def full(self) -> Iterator[None]:
        """Nobody finds room on it for a while; what a store frees meanwhile, as of its log, is taken."""
        ballast, ended = self.path / "ballast", threading.Event()

        def fill() -> None:
            with ballast.open("wb", buffering=0) as file:
                while not ended.wait(REFILL):
                    with suppress(OSError):
                        while True:
                            file.write(bytes(65536))

        filling = threading.Thread(target=fill, name="ballast")
        filling.start()
        try:
            yield
        finally:
            ended.set()
            filling.join()
            ballast.unlink()


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in children)]


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
