"""Starting and stopping `kgents up`: what a user sees, also when it can't."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.integration.system.test_durability import hello
from tests.support.up import Up
from tests.support.waiting import wait_until


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def refused(data: Path, *arguments: str, **environment: str) -> str:
    """What `kgents up` says when it does not start: one line, without a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "kgents.cli.main", "up", "--data", data, "--port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_the_json_line_says_how_to_reach_everything(data: Path) -> None:
    up = Up(data).start()
    try:
        assert httpx2.get(up.facts["metrics_url"]).text.startswith("# HELP")
        assert httpx2.get(up.facts["console_url"]).status_code == 200
        assert httpx2.get(f"{up.url}/docs").status_code == 200
        assert set(up.facts["pids"]) == {"up", "nats", "meter", "worker", "api"}
        for pid in up.facts["pids"].values():
            os.kill(pid, 0)
    finally:
        assert up.stop() == 0


def test_after_ctrl_c_nothing_is_left_and_the_next_start_carries_on(data: Path) -> None:
    up = Up(data).start()
    with up.client() as client:
        client.post("/v1/chat/completions", json=hello()).raise_for_status()
    first_key, pids = up.key, up.facts["pids"].values()
    assert up.stop() == 0
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    up.start()
    try:
        assert up.key == first_key
        with up.client() as client:
            rows = client.get("/v1/usage").raise_for_status().json()["data"]
        assert [row["quantity"] for row in rows if row["meter"] == "runs"] == [1]
    finally:
        up.stop()


def test_when_the_supervisor_is_killed_its_processes_end(data: Path) -> None:
    up = Up(data).start()
    pids = [pid for name, pid in up.facts["pids"].items() if name != "up"]
    os.kill(up.facts["pids"]["up"], 9)
    up.stop()
    wait_until(lambda: not any(alive(pid) for pid in pids), seconds=15, what="all processes have ended")
    up.start()
    assert up.stop() == 0


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_keys_are_in_files_that_only_the_owner_reads_and_never_in_a_log(data: Path) -> None:
    up = Up(data).start()
    try:
        with up.client() as client:
            client.post("/v1/chat/completions", json=hello()).raise_for_status()
        for name in ("keys.json", "secrets.json", "connections.json"):
            assert stat.S_IMODE((data / name).stat().st_mode) == 0o600
        secrets = [up.key, str(up.facts["admin_key"]), *json.loads((data / "secrets.json").read_text()).values()]
        logs = up.logs_until_now()
        assert logs
        assert not any(secret in logs for secret in secrets)
    finally:
        up.stop()


def test_a_port_in_use_is_named(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" in refused(data, "--port", str(port))


def test_a_second_kgents_on_the_same_data_folder_is_refused(data: Path) -> None:
    up = Up(data).start()
    try:
        assert str(up.facts["pids"]["up"]) in refused(data)
        assert up.health()["status"] in ("ok", "degraded")
    finally:
        up.stop()


def test_a_data_folder_of_a_newer_version_is_left_alone(data: Path) -> None:
    up = Up(data).start()
    up.stop()
    with sqlite3.connect(data / "kgents.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.execute("UPDATE schema_support SET oldest = '9999'")
    database.close()
    assert "9999" in refused(data)
    with sqlite3.connect(data / "kgents.db") as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]
    database.close()


def test_a_data_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in refused(tmp_path / "file" / "data")


def test_a_setting_that_can_not_be_used_is_named(data: Path) -> None:
    assert "KGENTS_MAX_BODY_BYTES" in refused(data, KGENTS_MAX_BODY_BYTES="many")
