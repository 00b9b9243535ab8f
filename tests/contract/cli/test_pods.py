"""`kgents logs` and `kgents top` on pods: a kubectl stands in, which answers as Kubernetes does and loses its
connection whenever it has told what there is.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kgents.deploy.pod_logs import LOOK
from tests.support.cli import Cli

KUBECTL = f"""#!{sys.executable} -S
import json, os, sys
from pathlib import Path
folder = Path(os.environ["PODS"])
options = dict(each[2:].partition("=")[::2] for each in sys.argv[1:] if each.startswith("--"))
if sys.argv[1] == "get":
    running = {{"phase": "Running", "containerStatuses": [{{"state": {{"running": {{}}}}, "restartCount": 0}}]}}
    names = [path.stem for path in folder.glob("*.log")]
    print(json.dumps({{"items": [{{"metadata": {{"name": name}}, "status": running}} for name in names]}}))
elif sys.argv[1] == "logs":
    lines = (folder / f"{{sys.argv[2]}}.log").read_text().splitlines(keepends=True)
    since = options.get("since-time", "")[:19]  # in whole seconds
    lines = [line for line in lines if line[:19] >= since]
    if (last := int(options.get("tail", -1))) >= 0:
        lines = lines[-last:]
    sys.stdout.write("".join(line if "timestamps" in options else line.partition(" ")[2] for line in lines))
"""
POD = "kgents-api-7d9c4b5f6c-x2x4z"


class Pods:
    """The folder with what each pod logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "kubectl").write_text(KUBECTL)
        (folder / "kubectl").chmod(0o755)

    def write(self, *lines: tuple[float, str], pod: str = POD) -> None:
        """Lines with the second in which the kubelet got them."""
        self.raw("".join(f"2026-11-26T10:00:{second:012.9f}Z {text}\n" for second, text in lines), pod)

    def raw(self, text: str, pod: str = POD) -> None:
        with (self.folder / f"{pod}.log").open("a") as file:
            file.write(text)


def line(second: float, event: str, **fields: Any) -> tuple[float, str]:
    return second, json.dumps(
        {"timestamp": f"2026-11-26T10:00:{second:09.6f}Z", "level": "info", "event": event, **fields}
    )


@pytest.fixture
def pods(tmp_path: Path) -> Pods:
    return Pods(tmp_path)


@pytest.fixture
def cli(pods: Pods, tmp_path: Path) -> Cli:
    return Cli(tmp_path, PATH=str(pods.folder), PODS=str(pods.folder))


def events(cli: Cli, *options: str) -> list[str]:
    done = cli("logs", "--namespace", "space", "-o", "json", *options)
    assert done.status == 0, done
    return [json.loads(each)["event"] for each in done.stdout.splitlines()]


def test_following_tells_each_line_once_though_the_connection_breaks(cli: Cli, pods: Pods) -> None:
    pods.write(line(1.2, "a"), line(1.5, "b"))
    told = [("a", "01.200000"), ("b", "01.500000")]
    with cli.start("logs", "--namespace", "space", "-o", "json", "--follow") as process:
        assert process.stdout is not None

        def read(count: int) -> list[tuple[str, str]]:
            lines = [json.loads(process.stdout.readline()) for _ in range(count)]  # type: ignore[union-attr]
            return [(each["event"], each["timestamp"][17:26]) for each in lines]

        assert read(2) == told
        pods.write(line(1.7, "failed"), (1.700001, "Traceback (most recent call last):"), (1.700002, "ValueError"))
        pods.write(line(1.6, "of a new pod"), pod="kgents-worker-6c9d8b7f5-x2x4z")
        assert sorted(read(4)) == [
            ("Traceback (most recent call last):", "01.700000"),
            ("ValueError", "01.700000"),
            ("failed", "01.700000"),
            ("of a new pod", "01.600000"),
        ]
        pods.write((1.9, "KeyError"))
        assert read(1) == [("KeyError", "01.700000")]
        pods.write(line(2.1, "z"))
        assert read(1) == [("z", "02.100000")]
        pods.raw("2026-11-26T10:00:02.300000000Z to")
        time.sleep(1.5 * LOOK)  # so that the connection breaks within the line
        pods.raw("rn\n")
        assert read(1) == [("torn", "02.100000")]


def test_what_is_looked_for_is_found_among_all_lines(cli: Cli, pods: Pods) -> None:
    pods.write(line(1.0, "first", tenant_id="ten_1", trace_id="aa", level="error"))
    pods.write(*(line(2.0, "later", tenant_id="ten_2") for _ in range(1100)))
    assert events(cli, "--tenant", "ten_1") == ["first"]
    assert events(cli, "--trace", "aa") == ["first"]
    assert events(cli, "--level", "error") == ["first"]
    assert events(cli, "--until", "2026-11-26T10:00:01.5Z") == ["first"]
    assert events(cli) == ["later"] * 100


def test_a_namespace_without_a_kgents_is_told(cli: Cli) -> None:
    for command in (("logs",), ("top", "--once")):
        complaint = cli(*command, "--namespace", "space").complaint
        assert "no pods of a kgents in space" in complaint
        assert "--namespace" in complaint
