"""A real Prometheus that looks at a running kgents once a second, and evaluates the rules."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import yaml

from tests.support.ports import free_port
from tests.support.process import ServerProcess
from tests.support.tools import left_out
from tests.support.waiting import wait_until

NAMESPACE = "kgents-agents"


def program(name: str) -> str:
    """`prometheus` or `promtool`, of Debian's package prometheus. Skips the test where it is not there."""
    return shutil.which(name) or left_out(f"there is no {name}; install the package prometheus")


class Prometheus:
    """With jobs that say what it scrapes, and groups of rules."""

    def __init__(self, folder: Path, jobs: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]]) -> None:
        folder.mkdir(exist_ok=True)
        self.url = f"http://127.0.0.1:{free_port()}"
        rules, configuration = folder / "rules.yaml", folder / "prometheus.yaml"
        rules.write_text(yaml.safe_dump({"groups": list(groups)}))
        configuration.write_text(yaml.safe_dump(_configuration(jobs, rules)))
        command = [
            program("prometheus"),
            f"--config.file={configuration}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
            "--log.level=warn",
        ]
        self._client = httpx2.Client(base_url=self.url, trust_env=False, timeout=30)
        self._process = ServerProcess(command, folder / "log")
        wait_until(self._is_ready, seconds=30, what="Prometheus is ready")

    def stop(self) -> None:
        """End it."""
        self._client.close()
        self._process.stop()

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series that a query answers now. Raises ValueError for one that can't be evaluated."""
        answer = self._client.post("/api/v1/query", data={"query": expr}).json()
        if answer["status"] != "success":
            raise ValueError(f"{answer['error']}: {expr}")
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def firing(self) -> set[tuple[str, str]]:
        """The alerts that fire now, each with its severity."""
        firing = [series["metric"] for series in self.query('ALERTS{alertstate="firing"}')]
        return {(labels["alertname"], labels["severity"]) for labels in firing}

    def metrics(self) -> dict[str, set[str]]:
        """Every metric that it has seen or recorded, with the names of its labels."""
        found: dict[str, set[str]] = {}
        answer = self._client.get("/api/v1/series", params={"match[]": '{__name__!=""}'}).json()
        for series in answer["data"]:
            found.setdefault(series.pop("__name__"), set()).update(series)
        return found

    def _is_ready(self) -> bool:
        if not self._process.is_running():
            raise RuntimeError(f"Prometheus ended: {self._process.log}")
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx2.HTTPError:
            return False


def _configuration(jobs: Sequence[Mapping[str, Any]], rules: Path) -> dict[str, Any]:
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": list(jobs),
    }


def job_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics ports of a `kgents up`, whose series get the labels that they have in a cluster."""
    pages = {"api": facts["metrics_url"], "worker": facts["worker_metrics_url"]}
    return {
        "job_name": "kgents",
        "static_configs": [
            {
                "targets": [page.removeprefix("http://").removesuffix("/metrics")],
                "labels": {"namespace": NAMESPACE, "component": component, "pod": f"kgents-{component}-0"},
            }
            for component, page in pages.items()
        ],
    }
