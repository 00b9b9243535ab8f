"""`kgents top` on a data folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.up import Up


@pytest.fixture
def load(up: Up) -> Iterator[None]:
    """Requests, one after the other, some of which fail."""
    stop = threading.Event()

    def ask() -> None:
        with up.client() as client:
            while not stop.wait(0.01):
                for text in ("hello", "/fail 500"):
                    body = {"model": "echo", "messages": [{"role": "user", "content": text}]}
                    client.post("/v1/chat/completions", json=body)

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.mark.usefixtures("load")
def test_what_happens_is_told(cli: Cli, up: Up) -> None:
    found = cli.json("top", "--once", "--interval", "1", "--data", up.data)
    assert found["status"] in ("ok", "degraded")
    assert found["requests"]["per_second"] > found["requests"]["errors_per_second"] > 0
    assert found["requests"]["p95_ms"] >= found["requests"]["p50_ms"] > 0
    assert found["runs"]["failed_per_second"] > 0
    assert found["tokens"]["output_per_second"] > 0
    assert {each["process"] for each in found["processes"]} == {"api", "worker"}
    assert {each["component"] for each in found["components"]} == {"sql", "nats", "meter", "rate_limits", "stripe"}


def test_a_live_view_on_a_terminal_ends_with_ctrl_c(cli: Cli, up: Up) -> None:
    terminal = cli.terminal("top", "--interval", "0.2", "--data", up.data, columns=80)
    terminal.read_until("COMPONENT")
    terminal.read_until("rate_limits")
    terminal.type("\x03")
    assert terminal.end() == 130


def test_lines_where_there_is_no_terminal(cli: Cli, up: Up) -> None:
    with cli.start("top", "--interval", "0.2", "--data", up.data) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().decode() for _ in range(2)]
    assert all(" requests=" in line and " outbox=" in line for line in lines)


def test_without_a_kgents_it_says_where_to_look(cli: Cli, tmp_path: Path) -> None:
    assert "--data" in cli("top", "--once", "--data", tmp_path).complaint
