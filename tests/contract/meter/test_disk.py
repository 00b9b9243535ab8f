"""A full disk, and files that can't be used: the meter says so, and nothing is half-written."""

from __future__ import annotations

import shutil
import socket
import sqlite3
from pathlib import Path

import pytest

from kgents.clock import SystemClock
from kgents.errors import Unavailable
from kgents.meter import layout
from kgents.meter.client import MeterUnavailable
from kgents.meter.model import METERS, Meter
from kgents.meter.server import serve
from tests.contract.meter.process import MeterProcess, event, send


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def reopen(path: Path, meters: tuple[Meter, ...] = METERS) -> None:
    layout.open_file(path, meters, SystemClock().now()).close()


async def test_while_the_disk_is_full_events_are_refused_and_the_meter_does_not_look_well(meter: MeterProcess) -> None:
    client = meter.client()
    with meter.http() as http:
        assert send(http, [event("before", 5)]).status_code == 204
        meter.fill_the_disk()
        large = [event(f"e{number}", 1, data={"quantity": 1, "filler": "x" * 5000}) for number in range(500)]
        refusal = send(http, large)
        assert (refusal.status_code, refusal.headers["content-type"]) == (503, "application/problem+json")
        assert http.get("/readyz").status_code == 503
        assert http.get("/health").status_code == 200
        with pytest.raises(MeterUnavailable, match="503"):
            await client.ping()
        assert meter.totals() == {"ten_1": 5}

        meter.make_room()
        assert await client.ping() > 0
        assert http.get("/readyz").status_code == 200
        assert send(http, large).status_code == 204
    assert meter.totals() == {"ten_1": 505}
    await client.aclose()


def test_a_batch_that_fails_does_not_stop_the_next(meter: MeterProcess) -> None:
    with meter.http() as http:
        for number in range(3):
            meter.fill_the_disk()
            large = [event(f"{number}-{part}", data={"quantity": 1, "filler": "x" * 5000}) for part in range(500)]
            assert send(http, large).status_code == 503
            meter.make_room()
            assert send(http, [event(f"small-{number}")]).status_code == 204
    assert meter.totals() == {"ten_1": 3}


async def test_a_port_in_use_is_one_clear_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Unavailable, match="can't listen on 127"):
            await serve("127.0.0.1", taken.getsockname()[1], tmp_path / "meter.db")


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "meter.db"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {layout.VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(Unavailable, match="written by a newer kgents"):
        reopen(path)
    assert path.read_bytes()[100:] == before[100:]  # the first 100 bytes tell the journal's mode


def test_a_file_that_is_no_database_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "meter.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(Unavailable, match="can't be used"):
        reopen(path)


def test_a_folder_that_can_not_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="can't be used"):
        reopen(tmp_path / "file" / "meter.db")


def test_a_file_of_the_first_layout_counts_what_it_holds(meter: MeterProcess, tmp_path: Path) -> None:
    with meter.http() as http:
        send(http, [event("a", 5), event("b", 6, subject="ten_2")])
    meter.stop()
    connection = sqlite3.connect(meter.file)
    connection.executescript(
        "DROP TABLE minutes; DROP TABLE meters; PRAGMA user_version = 0;"
        "CREATE TABLE minutes (type TEXT, subject TEXT, minute INTEGER, agent TEXT, model TEXT, total INTEGER);"
    )
    connection.close()
    meter.start()
    assert meter.totals() == {"ten_1": 5, "ten_2": 6}


def test_a_meter_that_counts_differently_counts_the_old_events_anew(meter: MeterProcess, tmp_path: Path) -> None:
    with meter.http() as http:
        send(http, [event("a", 5), event("b", 6), event("c", 7, type="other")])
    meter.stop()
    copy = tmp_path / "copy.db"
    shutil.copy(meter.file, copy)
    reopen(copy, (Meter("most", "kgents.input_tokens", aggregation="MAX"), Meter("others", "other", group_by=())))
    assert rows(copy, "SELECT meter, groups, low FROM minutes ORDER BY meter") == [
        ("most", '["agt_1","m"]', 6),
        ("others", "[]", 7),
    ]
