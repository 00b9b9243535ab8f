"""`kgents logs` on a data folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Cli
from tests.support.up import Up

TRACE = "4bf92f3577b34da6a3ce929d0e0eabcd"
OTHER = "4bf92f3577b34da6a3ce929d0e0edcba"


def ask(up: Up, trace: str = TRACE) -> None:
    with up.client() as client:
        client.get("/v1/agents", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-00"}).raise_for_status()


def lines(cli: Cli, up: Up, *options: str) -> list[dict[str, Any]]:
    done = cli("logs", "--data", up.data, "-o", "json", *options)
    assert done.status == 0, done
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module", autouse=True)
def asked(up: Up) -> None:
    ask(up)
    ask(up, OTHER)


def test_a_trace_is_found(cli: Cli, up: Up) -> None:
    found = lines(cli, up, "--trace", TRACE, "--process", "api")
    assert [line["route"] for line in found] == ["/v1/agents"]
    assert lines(cli, up, "--tenant", found[0]["tenant_id"], "--trace", OTHER, "--since", "1d")
    assert lines(cli, up, "--tenant", "ten_nobody") == lines(cli, up, "--trace", TRACE, "--until", "2000-01-01") == []


def test_lines_of_all_processes_come_in_the_order_of_their_times(cli: Cli, up: Up) -> None:
    found = lines(cli, up, "--since", "1d")
    assert {"api", "worker", "nats"} <= {line["process"] for line in found}
    times = [line["timestamp"] for line in found if "timestamp" in line]
    assert times == sorted(times)


def test_a_line_for_people(cli: Cli, up: Up) -> None:
    (line,) = cli("logs", "--data", up.data, "--trace", TRACE).stdout.splitlines()
    assert " info     api     request method=GET route=/v1/agents status=200 " in line
    assert line.endswith(f"trace_id={TRACE}")


def test_following(cli: Cli, up: Up) -> None:
    with cli.start("logs", "--data", up.data, "--trace", TRACE, "--follow") as process:
        assert process.stdout is not None
        assert TRACE in process.stdout.readline().decode()
        ask(up)
        assert TRACE in process.stdout.readline().decode()


def test_following_what_is_no_json(cli: Cli, tmp_path: Path) -> None:
    """It belongs to the line before it, however late it comes."""
    log = tmp_path / "logs" / "api.jsonl"
    log.parent.mkdir()
    log.write_text(json.dumps({"timestamp": "2026-11-26T10:00:01.000000Z", "level": "error", "event": "failed"}) + "\n")
    command = ("logs", "--data", tmp_path, "--since", "2026-11-26T10:00:00Z", "--follow", "-o", "json")
    with cli.start(*command) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "failed"
        for text in ("Traceback (most recent call last):", "ValueError"):
            with log.open("a") as file:
                file.write(text + "\n")
            found = json.loads(process.stdout.readline())
            assert (found["event"], found["timestamp"]) == (text, "2026-11-26T10:00:01.000000Z")


def test_following_ends_where_it_is_to(cli: Cli, up: Up) -> None:
    until = datetime.now(UTC) + timedelta(seconds=3)
    assert lines(cli, up, "--trace", TRACE, "--follow", "--until", until.isoformat())


def test_without_logs_it_says_where_to_look(cli: Cli, tmp_path: Path) -> None:
    assert "--data" in cli("logs", "--data", tmp_path).complaint
    assert "--namespace" in cli("logs", "--data", tmp_path).complaint


def test_a_time_that_can_not_be_read(cli: Cli, up: Up) -> None:
    done = cli("logs", "--data", up.data, "--since", "yesterday")
    assert (done.status, "yesterday" in done.stderr) == (2, True)
