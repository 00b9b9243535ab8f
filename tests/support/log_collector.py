"""The log collector: the OpenTelemetry Collector, started with the configuration and the arguments of its DaemonSet."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL
from typing import Any

import httpx2
import yaml

from cluster import build
from tests.support.log_store import LogStore
from tests.support.manifests import ROOT
from tests.support.pod_logs import ContainerLog
from tests.support.process import ServerProcess
from tests.support.reached import trust
from tests.support.tools import left_out
from tests.support.waiting import wait_until

FOLDER = ROOT / "deploy" / "components" / "log-collector"
NODE = "node-1"


def container() -> dict[str, Any]:
    """The container of the DaemonSet."""
    found = yaml.safe_load((FOLDER / "daemon-set.yaml").read_text())
    made: dict[str, Any] = found["spec"]["template"]["spec"]["containers"][0]
    return made


class Collector:
    """A collector of the pods under `folder`/pods. `changes` is merged into its configuration."""

    def __init__(self, folder: Path, store_url: str, changes: Mapping[str, Any] | None = None) -> None:
        if shutil.which("go") is None:
            left_out("there is no Go to build the log collector with")
        self.pods = folder / "pods"
        self.state = folder / "state"
        for made in (self.pods, self.state):
            made.mkdir(exist_ok=True)
        self._log = folder / "collector.log"
        changed = folder / "changes.yaml"
        changed.write_text(json.dumps(changes or {}))
        # Its ports are fixed, and each has an address of loopback for itself.
        self._address = "127." + ".".join(str(random.randint(1, 254)) for _ in range(3))
        given = container()
        self._command = [
            build.build("collector") / "collector",
            f"--config={FOLDER / 'config.yaml'}",
            f"--config={changed}",
            *(argument for argument in given["args"] if not argument.startswith("--config=")),
        ]
        self._environment = {each["name"]: str(each.get("value", "")) for each in given["env"]} | {
            "LOKI_URL": store_url,
            "LOGS_FOLDER": str(self.pods),
            "STATE_FOLDER": str(self.state),
            "LISTEN_ADDRESS": self._address,
            "NODE_NAME": NODE,
        }
        self._process: ServerProcess | None = None
        self.start()

    def start(self) -> None:
        """Start it, and wait until it says that it is well."""
        process = ServerProcess(self._command, self._log, environment=self._environment)
        self._process = process

        def healthy() -> bool:
            assert process.is_running(), process.log
            try:
                return bool(httpx2.get(f"http://{self._address}:13133/", trust_env=False, verify=trust()).is_success)
            except httpx2.HTTPError:
                return False

        wait_until(healthy, seconds=30, what="the collector is well")

    def kill(self) -> None:
        """End it at once."""
        self.stop(SIGKILL)

    def stop(self, *signals: Any) -> None:
        """End it."""
        if self._process is not None:
            self._process.stop(*signals)

    @property
    def said(self) -> str:
        """What it logged."""
        return self._log.read_text()

    def memory(self) -> int:
        """How many bytes of memory it has now."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))

    def on_disk(self) -> int:
        """How many bytes its state takes."""
        return sum(path.stat().st_size for path in self.state.iterdir())

    def metric(self, name: str) -> float:
        """The sum of a metric's series; 0 while there is none."""
        return sum(value for found, _, value in self.series() if found == name)

    def series(self) -> list[tuple[str, set[str], float]]:
        """Every series of its metrics: its name, the names of its labels, and its value."""
        text = httpx2.get(f"http://{self._address}:8888/metrics", trust_env=False, verify=trust()).text
        found = re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE)
        return [(name, set(re.findall(r'(\w+)="', labels)), float(value)) for name, labels, value in found]


@contextmanager
def collecting(folder: Path, store: LogStore, changes: Mapping[str, Any] | None = None) -> Iterator[Collector]:
    """A collector that sends to a store, for as long as the block takes."""
    collector = Collector(folder, store.url, changes)
    try:
        yield collector
    finally:
        collector.stop()


def sent(folder: Path, logs: Iterable[Path]) -> list[bytes]:
    """What the collector sends to the store of log files of a kgents, as if each were that of a container: whole
    messages, with every line.
    """
    folder.mkdir()
    store = LogStore()
    with collecting(folder, store) as collector:
        written = 0
        for path in logs:
            lines = path.read_text(errors="replace").splitlines()
            ContainerLog(collector.pods, f"kgents-{path.stem}-0", path.stem).write(*lines)
            written += len(lines)
        wait_until(lambda: len(store.lines) >= written, seconds=60, what=f"{written} lines are there")
    store.stop()
    assert not store.refused, store.refused
    return store.messages
