"""A real `kgents up`, as a user starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2

from tests.support.reached import Reached, trust
from tests.support.waiting import wait_until

UNMEASURED = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}
"""For processes whose lines are not counted: it would slow them, and who is killed has no time to tell.

Python under coverage also loses a KeyboardInterrupt in one of seven tries, when Ctrl-C comes while lines are counted.
"""


class Up(Reached):
    """`kgents up --json` on a data folder; `facts` is what it printed first, `said` all that it printed until its end.

    `module` is what Python runs instead of the command, for a kgents with a planted fault.
    """

    def __init__(
        self,
        data: Path,
        *,
        port: int = 0,
        environment: dict[str, str] | None = None,
        module: str = "kgents.cli.main",
    ) -> None:
        self.data = data
        self._port = port
        self._environment = environment or {}
        self._process: subprocess.Popen[str] | None = None
        self._module = module
        self.facts: dict[str, Any] = {}
        self.said = ""

    def start(self) -> Up:
        """Start it and wait until it is ready. Raises RuntimeError with what it said when it does not start."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module, "up", "--json", "--data", self.data, "--port", str(self._port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "KGENTS_CONFIG_DIR": str(self.data / "config"), **self._environment},
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate(timeout=60)
            raise RuntimeError(f"kgents up did not start: {errors}\n{self.logs()[-3000:]}")
        self.facts = json.loads(line)
        self.said = line
        self._port = int(self.url.rpartition(":")[2])  # the same after a restart
        return self

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Stop it as Ctrl-C does; answers its exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            self.said += "".join(self._process.communicate(timeout=90))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        return self._process.returncode

    @property
    def url(self) -> str:
        return str(self.facts["url"])

    @property
    def key(self) -> str:
        return str(self.facts["api_key"])

    @property
    def admin_key(self) -> str:
        return str(self.facts["admin_key"])

    def client(self, key: str = "") -> httpx2.Client:
        """An HTTP client with the first tenant's key, or another."""
        return super().client(key or self.key)

    def meter(self) -> httpx2.Client:
        token = json.loads((self.data / "connections.json").read_text())["meter_token"]
        headers = {"Authorization": f"Bearer {token}"}
        return httpx2.Client(base_url=str(self.facts["meter_url"]), headers=headers, trust_env=False, verify=trust())

    def metrics(self) -> list[str]:
        pages = [self.facts["metrics_url"], self.facts["worker_metrics_url"]]
        return [httpx2.get(page, trust_env=False, verify=trust()).text for page in pages]

    def pid(self, name: str) -> int:
        """The pid of one of its processes now."""
        return int(json.loads((self.data / "pids.json").read_text())[name])

    def logs_until_now(self) -> str:
        """The logs with the line of every request that was answered before: the API writes it just after the answer."""
        marker = f"until-now-{uuid4().hex}"
        httpx2.get(f"{self.url}/v1/none", headers={"X-Request-Id": marker}, trust_env=False, timeout=30, verify=trust())
        wait_until(lambda: marker in self.logs(), what="the last request is in the logs")
        return self.logs()

    def logs(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted((self.data / "logs").glob("*")))
