"""`kgents logs` and `kgents top` on an installation in a cluster, through kubectl."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import httpx2

from tests.cluster.installation import NAMESPACE, ROOT, Installation
from tests.support.waiting import wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0ec1c1"


def ask(installation: Installation) -> None:
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-00"}
    httpx2.get(f"{installation.url}/health/saas", headers=headers, timeout=10, trust_env=False)


def logged(installation: Installation, *options: str) -> list[dict[str, Any]]:
    done = installation.cluster.kgents("logs", f"--namespace={NAMESPACE}", "--output=json", *options, seconds=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_trace_is_found_among_the_pods(installation: Installation) -> None:
    ask(installation)
    found = wait_until(lambda: logged(installation, f"--trace={TRACE}", "--since=10m"), seconds=20, what="it is logged")
    assert {line["process"] for line in found} <= set(installation.pods("kgents", "api"))
    times = [line["timestamp"] for line in logged(installation, "--since=10m") if "timestamp" in line]
    assert times == sorted(times)


def test_following_pods(installation: Installation) -> None:
    command = [sys.executable, "-m", "kgents.cli.main", "logs", f"--namespace={NAMESPACE}", f"--trace={TRACE}", "-f"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=installation.cluster.environment, cwd=ROOT
    ) as process:
        try:
            assert process.stdout is not None
            ask(installation)
            assert TRACE in process.stdout.readline()
        finally:
            process.terminate()


def test_top_tells_of_every_pod(installation: Installation) -> None:
    done = installation.cluster.kgents("top", f"--namespace={NAMESPACE}", "--once", "--output=json", seconds=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["status"] == "ok"
    assert {each["process"] for each in found["processes"]} == set(installation.pods("kgents"))
