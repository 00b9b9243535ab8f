"""`kgents top`: what a kgents does just now, live."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import httpx2

from kgents.cli import connections
from kgents.cli.client import Refused
from kgents.cli.output import Format, cell
from kgents.cli.top_figures import Reading, figures, sample_of
from kgents.cli.top_view import view
from kgents.deploy.kubectl import Kubectl
from kgents.deploy.pod_metrics import PodMetrics


class Place(Protocol):
    """Where a kgents runs."""

    def pages(self) -> dict[str, str]:
        """The metrics page of each process that answers, by its name."""
        ...

    def health(self) -> dict[str, Any]:
        """The health page; an empty one where there is none."""
        ...


class Machine:
    """A `kgents up` on this machine."""

    def __init__(self, data: Path) -> None:
        """Raises Refused where there is none in the folder."""
        kept = connections.read(
            data / "connections.json",
            *("url", "api_metrics_url", "worker_metrics_url"),
            instead="Name the data folder of a kgents up with --data, or the namespace of a cluster with --namespace.",
        )
        self._url = kept["url"]
        self._metrics = {name: kept[f"{name}_metrics_url"] for name in ("api", "worker")}
        self._client = httpx2.Client(timeout=5, trust_env=False)

    def pages(self) -> dict[str, str]:
        """Raises Refused where no process answers."""
        found: dict[str, str] = {}
        for name, url in self._metrics.items():
            try:
                found[name] = self._client.get(url).text
            except httpx2.HTTPError:
                continue  # it is being started again
        if not found:
            raise Refused(f"No answer from {', '.join(self._metrics.values())}. Start it with: kgents up")
        return found

    def health(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._client.get(f"{self._url}/health/saas").json()
        except (httpx2.HTTPError, ValueError):
            return {}
        return found


def run(*, once: bool, interval: float, output: Format, data: Path, cluster: tuple[str, str] | None) -> None:
    """Show the figures every `interval` seconds, or once. `cluster` is kubectl's context and a namespace.

    Raises Refused where nothing answers.
    """
    place: Place = PodMetrics(Kubectl(cluster[0]), cluster[1]) if cluster else Machine(data)
    found = _figures(place, interval)
    if once:
        _whole(next(found), output)
    elif output is Format.TABLE and sys.stdout.isatty():
        _live(found)
    else:
        for each in found:
            _whole(each, output) if output is not Format.TABLE else _print(line(each))


def _figures(place: Place, interval: float) -> Iterator[dict[str, Any]]:
    with ThreadPoolExecutor(2) as pool:
        before = _read(place, pool)
        while True:
            time.sleep(interval)
            after = _read(place, pool)
            yield {"time": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")} | figures(
                before, after
            )
            before = after


def _read(place: Place, pool: ThreadPoolExecutor) -> Reading:
    health = pool.submit(place.health)
    pages = place.pages()
    at = time.monotonic()
    return Reading(at, {name: sample_of(page) for name, page in pages.items()}, health.result())


def _live(found: Iterator[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(highlight=False), screen=True, auto_refresh=False) as screen:
        screen.update("Measuring.", refresh=True)
        for each in found:
            screen.update(view(each), refresh=True)


def _whole(found: dict[str, Any], output: Format) -> None:
    if output is Format.JSON:
        _print(json.dumps(found))
    elif output is Format.YAML:
        import yaml

        _print("---\n" + yaml.safe_dump(found, sort_keys=False).rstrip("\n"))
    else:
        from rich.console import Console

        Console(highlight=False).print(view(found))


def line(found: dict[str, Any]) -> str:
    """The figures in a line, where there is no terminal."""
    requests, runs, tokens, backlog = (found[name] for name in ("requests", "runs", "tokens", "backlog"))
    told = {
        "requests": f"{requests['per_second']}/s",
        "errors": f"{requests['errors_per_second']}/s",
        "p50": f"{cell(requests['p50_ms'])}ms",
        "p95": f"{cell(requests['p95_ms'])}ms",
        "runs": f"{runs['per_second']}/s",
        "tokens": f"{tokens['input_per_second']}+{tokens['output_per_second']}/s",
        "outbox": cell(backlog["outbox"]),
        "bus": cell(backlog["bus"]),
    }
    return " ".join([found["time"], found["status"], *(f"{name}={value}" for name, value in told.items())])


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
