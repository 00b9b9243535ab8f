"""`kgents usage` and its comparison with the meter."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.contract.cli.conftest import access
from tests.support.cli import Cli
from tests.support.ports import free_port
from tests.support.up import Up
from tests.support.waiting import wait_until

RECONCILE = ("usage", "reconcile", "--from", "2026-01-01", "--to", "2100-01-01", "--window", "month")


@pytest.fixture
def operator(own_up: Up, tmp_path: Path) -> Cli:
    """`kgents` at the machine of a `kgents up` that tests may harm."""
    return Cli(tmp_path, KGENTS_DATA_DIR=str(own_up.data), **access(own_up))


def test_usage_is_exact_and_drawn(tenant_cli: Callable[..., Cli]) -> None:
    cli = tenant_cli()
    cli("agent", "create", "big")
    for agent, text in (("echo", "a b"), ("big", "a b c d e f g h")):
        assert cli("run", "create", agent, text).status == 0
    found = cli.json("usage", "show", "--meter", "runs")["data"]
    assert [(row["meter"], row["quantity"]) for row in found] == [("runs", 2)]
    lines = cli("usage", "show", "--meter", "output_tokens", "--group-by", "agent").stdout.splitlines()
    assert lines[0].split() == ["METER", "WINDOW", "START", "AGENT", "QUANTITY", "CHART"]
    by_quantity = {int(line.split()[3]): line.split()[4] for line in lines[1:]}
    least, most = sorted(by_quantity)
    assert by_quantity[most] == "█" * 24
    assert abs(len(by_quantity[least]) - 24 * least / most) <= 1
    assert "█" not in cli("usage", "show", "--no-chart").stdout
    assert "#" * 24 in cli("usage", "show", PYTHONIOENCODING="ascii").stdout


@pytest.mark.parametrize(("window", "length"), [("hour", 16), ("day", 10), ("month", 7)])
def test_a_window_is_shown_as_long_as_it_is_exact(tenant_cli: Callable[..., Cli], window: str, length: int) -> None:
    cli = tenant_cli()
    cli("run", "create", "echo", "hi")
    line = cli("usage", "show", "--window", window).stdout.splitlines()[1]
    assert len(line.split()[1]) == length


def test_the_balance_shows_what_is_left(tenant_cli: Callable[..., Cli]) -> None:
    cli = tenant_cli("--quota", "runs=10")
    cli("run", "create", "echo", "one two")
    lines = [line.split() for line in cli("usage", "balance").stdout.splitlines()]
    assert lines[1] == ["runs", "1", "0", "10", "9"]
    assert lines[2][3:] == ["-", "-"]


def test_events_are_listed_by_run_and_meter(tenant_cli: Callable[..., Cli]) -> None:
    cli = tenant_cli()
    run = cli.json("run", "create", "echo", "one two")["id"]
    cli("run", "create", "echo", "other")
    events = cli.json("usage", "events", "--run", run)
    assert {event["meter"] for event in events} == {"runs", "input_tokens", "output_tokens"}
    assert {event["run_id"] for event in events} == {run}
    assert [event["meter"] for event in cli.json("usage", "events", "--meter", "runs")] == ["runs", "runs"]
    assert len(cli.json("usage", "events", "--most", "4")) == 4


def test_a_difference_is_shown_and_repaired(operator: Cli, own_up: Up) -> None:
    assert operator("run", "create", "echo", "metered").status == 0
    own_up.settled()
    wait_until(lambda: operator(*RECONCILE).status == 0, seconds=30, what="ledger and meter agree")
    _plant(own_up, quantity=41)
    done = operator(*RECONCILE, "-o", "json")
    assert done.status == 1
    [difference] = done.json()
    assert (difference["meter"], difference["difference"]) == ("output_tokens", 41)
    assert difference["ledger"] == difference["metered"] + 41
    assert "1 differ" in done.stderr
    assert "--repair" in done.stderr
    shown = operator(*RECONCILE).stdout.splitlines()
    assert shown[0].split() == ["TENANT", "METER", "WINDOW", "START", "LEDGER", "METERED", "DIFFERENCE", "IN", "FLIGHT"]
    assert shown[1].split()[-2:] == ["41", "0"]
    repaired = operator(*RECONCILE, "--repair")
    assert repaired.status == 0, repaired
    assert "0 differ" in repaired.stderr
    assert "sent to the meter again" in repaired.stderr
    assert operator(*RECONCILE).status == 0


def test_reconcile_without_the_meter_fails(operator: Cli, own_up: Up) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    database = f"sqlite:///{own_up.data / 'kgents.db'}"
    assert "meter" in operator(*RECONCILE, KGENTS_DATABASE_URL=database, KGENTS_METER_URL=dead).complaint


def test_reconcile_says_where_its_settings_come_from(cli: Cli, tmp_path: Path) -> None:
    complaint = cli(*RECONCILE, KGENTS_DATA_DIR=str(tmp_path / "none")).complaint
    assert "KGENTS_DATA_DIR" in complaint
    assert "KGENTS_DATABASE_URL" in complaint


@pytest.mark.parametrize("text", ["[]", "{", '{"url": "x"}'])
@pytest.mark.parametrize("command", [(*RECONCILE,), ("tenant", "erased"), ("top", "--once")], ids=" ".join)
def test_a_damaged_data_folder_is_told_by_its_file(
    stranger: Cli, tmp_path: Path, command: tuple[str, ...], text: str
) -> None:
    (tmp_path / "connections.json").write_text(text)
    complaint = stranger(*command, KGENTS_DATA_DIR=str(tmp_path)).complaint
    assert f"{tmp_path / 'connections.json'} is damaged. Start its kgents up anew" in complaint


def test_without_the_meter_health_says_so_and_fails(operator: Cli, own_up: Up) -> None:
    assert operator("health").status == 0
    stopped = own_up.pid("meter")
    os.kill(stopped, signal.SIGSTOP)
    try:
        done = wait_until(lambda: (found := operator("health")).status and found, seconds=30, what="it is degraded")
        assert done.status == 1
        assert "the health is degraded: meter is disconnected" in done.stderr
        assert "disconnected" in next(line for line in done.stdout.splitlines() if line.startswith("meter"))
        assert operator("health", "-o", "json").json()["status"] == "degraded"
    finally:
        os.kill(stopped, signal.SIGCONT)
    wait_until(lambda: operator("health").status == 0, seconds=30, what="it is well again")


def _plant(up: Up, *, quantity: int) -> None:
    """A usage event that the ledger has, and the meter never got."""
    with closing(sqlite3.connect(up.data / "kgents.db", timeout=30)) as database, database:
        tenant, agent = database.execute("SELECT tenant_id, agent_id FROM usage_events LIMIT 1").fetchone()
        database.execute(
            "INSERT INTO usage_events (event_id, tenant_id, meter, quantity, run_id, agent_id, model, estimated, "
            "occurred_at) VALUES (?, ?, 'output_tokens', ?, 'run_planted', ?, 'kgents:echo', 0, ?)",
            ("run_planted:0:output_tokens", tenant, quantity, agent, time.time_ns() // 1000),
        )
