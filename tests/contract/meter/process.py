"""The embedded meter as a process of its own, which tests may kill; and, as a program, that process."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import orjson

from kgents.meter.client import MeterClient
from kgents.meter.server import serve
from tests.support.process import ServerProcess
from tests.support.reached import trust
from tests.support.waiting import wait_until

TOKEN = "meter-token"


class MeterProcess:
    """A meter on a file; it keeps its port when it is started again."""

    def __init__(self, folder: Path, port: int) -> None:
        self.file = folder / "meter.db"
        self.url = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "tests.contract.meter.process", str(port), str(self.file)]
        self._log = folder / "meter.log"
        self._process: ServerProcess | None = None

    @property
    def process(self) -> ServerProcess:
        assert self._process is not None
        return self._process

    def start(self) -> MeterProcess:
        """Start it and wait until it answers."""
        self._process = ServerProcess(self._command, self._log)
        wait_until(self._answers, what="the meter answers")
        return self

    def _answers(self) -> bool:
        assert self.process.is_running(), self.process.log
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(f"{self.url}/health", trust_env=False, verify=trust()).status_code == 200
        return False

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.stop(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        if self._process is not None:
            self._process.stop()

    def fill_the_disk(self) -> None:
        """Let no file of the process grow any more, as on a full disk."""
        size = max(path.stat().st_size for path in self.file.parent.glob("meter.db*"))
        self._limit(size)

    def make_room(self) -> None:
        """Let files grow again."""
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, hard))

    def http(self) -> httpx2.Client:
        """A client that carries the token."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx2.Client(base_url=self.url, headers=headers, trust_env=False, timeout=30, verify=trust())

    def client(self) -> MeterClient:
        """The product's own client."""
        return MeterClient(self.url, TOKEN)

    def totals(self, meter: str = "input_tokens") -> dict[str, int]:
        """What the meter has counted for each subject."""
        with self.http() as http:
            answer = http.get(f"/api/v1/meters/{meter}/query", params={"groupBy": "subject"}).raise_for_status()
        return {row["subject"]: row["value"] for row in answer.json()["data"]}


def event(id_: str, quantity: int = 1, subject: str = "ten_1", **changes: Any) -> dict[str, Any]:
    """A CloudEvent of input tokens."""
    return {
        "specversion": "1.0",
        "id": id_,
        "source": "test",
        "type": "kgents.input_tokens",
        "subject": subject,
        "time": "2026-03-10T12:00:00Z",
        "data": {"quantity": quantity, "agent": "agt_1", "model": "m"},
    } | changes


def send(http: httpx2.Client, events: Sequence[dict[str, Any]]) -> httpx2.Response:
    """Send a batch."""
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    return http.post("/api/v1/events", content=orjson.dumps(events), headers=headers)


async def _main() -> None:
    port, path = int(sys.argv[1]), Path(sys.argv[2])
    serving = asyncio.create_task(serve("127.0.0.1", port, path, TOKEN))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


if __name__ == "__main__":
    asyncio.run(_main())
