"""Files as the kubelet and containerd write them under /var/log/pods.

The lines are as Kubernetes' CRI has them (design proposal "CRI: Log management for container stdout/stderr
streams"), the names and the rotation as in its pkg/kubelet/logs/container_log_manager.go.
"""

from __future__ import annotations

import gzip
import shutil
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

PIECE = 16 * 1024  # bytes of a line after which containerd cuts it


def cri(text: str, stream: str = "stdout") -> bytes:
    """A line of a program as it stands in the file: in pieces where it is long."""
    data = text.encode()
    pieces = [data[start : start + PIECE] for start in range(0, len(data), PIECE)] or [b""]
    tags = [b"P"] * (len(pieces) - 1) + [b"F"]
    return b"".join(
        b"%s %s %s %s\n" % (_now(), stream.encode(), tag, piece) for tag, piece in zip(tags, pieces, strict=True)
    )


class ContainerLog:
    """The log of one container of a pod."""

    def __init__(self, folder: Path, pod: str, container: str, namespace: str = "kgents-agents") -> None:
        self._folder = folder / f"{namespace}_{pod}_{uuid4()}" / container
        self._folder.mkdir(parents=True)
        self.path = self._folder / "0.log"
        self.path.touch()
        self._rotations = 0

    def write(self, *texts: str, stream: str = "stdout") -> None:
        """Write lines."""
        self.raw(b"".join(cri(text, stream) for text in texts))

    def raw(self, content: bytes) -> None:
        """Write this as it is."""
        with self.path.open("ab") as file:
            file.write(content)

    def rotate(self) -> None:
        """Put the file aside, compress the one before it, and begin a new one."""
        for old in self._rotated():
            with old.open("rb") as whole, gzip.open(f"{old}.gz", "wb") as small:
                shutil.copyfileobj(whole, small)
            old.unlink()
        self._rotations += 1
        self.path.rename(f"{self.path}.20261126-{self._rotations:06}")
        self.path.touch()

    def _rotated(self) -> Iterable[Path]:
        return [path for path in self._folder.glob("0.log.*") if path.suffix != ".gz"]


def _now() -> bytes:
    nanoseconds = time.time_ns()
    moment = datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds % 1_000_000_000:09}Z".encode()
