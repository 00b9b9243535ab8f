"""A real `kgents up`, as a user starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2

from tests.support.waiting import wait_until

UNMEASURED = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}
"""For processes whose lines are not counted: it would slow them, and who is killed has no time to tell.

Python under coverage also loses a KeyboardInterrupt in one of seven tries, when Ctrl-C comes while lines are counted.
"""


class Up:
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

    def client(self, key: str = "") -> httpx2.Client:
        """An HTTP client with the first tenant's key, or another."""
        return httpx2.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {key or self.key}"}, timeout=60, trust_env=False
        )

    def admin(self) -> httpx2.Client:
        """An HTTP client with the platform administrator's key."""
        return self.client(str(self.facts["admin_key"]))

    def health(self) -> dict[str, Any]:
        """What /health/saas says now."""
        answer: dict[str, Any] = httpx2.get(f"{self.url}/health/saas", timeout=10, trust_env=False).json()
        return answer

    def component(self, name: str) -> str:
        """The status of a component on the health page."""
        return str(self.health()["components"][name]["status"])

    def pid(self, name: str) -> int:
        """The pid of one of its processes now."""
        return int(json.loads((self.data / "pids.json").read_text())[name])

    def logs(self) -> str:
        """What its processes have logged."""
        return "".join(path.read_text(errors="replace") for path in sorted((self.data / "logs").glob("*")))

    def settled(self, seconds: float = 30.0) -> None:
        """Wait until the usage pipeline is empty."""

        def empty() -> bool:
            components = self.health()["components"]
            return not any(components[name]["backlog"] for name in ("sql", "nats"))

        wait_until(empty, seconds=seconds, what="the usage pipeline is empty")
