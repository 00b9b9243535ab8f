"""Event streams are cut at random bytes and taken up with Last-Event-ID: none is missing, none comes twice."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import httpx2
import pytest

from tests.faults.systems import FULL, new_seed, running
from tests.support.results import record

CUTS = 500 if FULL else 60
FOLLOWERS = 8
TEXT = "/sleep 0.01 /words 60"
PIECE = 3000  # bytes, at most, between two cuts
ENDS = (b"run.completed", b"run.failed")
TRIES = 10 * CUTS

Event = tuple[str, bytes]  # its id and its data


def follow(client: httpx2.Client, run: str, random: Random, resume: Callable[[str], str]) -> tuple[list[Event], int]:
    """Follow a run to its end in pieces of random length; answers the joined events and the number of cuts."""
    events: list[Event] = []
    for cuts in range(TRIES):
        headers = {"Last-Event-ID": resume(events[-1][0])} if events else {}
        with client.stream("GET", f"/v1/runs/{run}/events", headers=headers) as response:
            response.raise_for_status()
            events += parse(_piece(response, random.randrange(1, PIECE)))
        if events and any(end in events[-1][1] for end in ENDS):
            return events, cuts
    raise AssertionError(f"{run} was not followed to its end in {TRIES} pieces")


def _piece(response: httpx2.Response, length: int) -> bytes:
    received = b""
    for part in response.iter_bytes():
        received += part
        if len(received) >= length:
            return received[:length]
    return received


def parse(text: bytes) -> list[Event]:
    """The events that are whole."""
    events = []
    for block in text.split(b"\n\n")[:-1]:
        fields = dict(line.split(b": ", 1) for line in block.splitlines() if b": " in line)
        if b"id" in fields:
            events.append((fields[b"id"].decode(), fields[b"event"] + b" " + fields[b"data"]))
    return events


def followed(client: httpx2.Client, seed: int, resume: Callable[[str], str]) -> tuple[int, int, list[str]]:
    """Runs whose streams are cut CUTS times together: the cuts, the events, and which streams came out wrong."""
    wrong: list[str] = []
    cuts = total = number = 0
    while cuts < CUTS:
        number += 1
        session = client.post("/v1/sessions", json={"agent": "echo"}).raise_for_status().json()["id"]
        body = {"input": TEXT, "mode": "background"}
        run = client.post(f"/v1/sessions/{session}/runs", json=body).raise_for_status().json()["id"]
        with ThreadPoolExecutor(FOLLOWERS) as pool:
            following = [
                pool.submit(follow, client, run, Random(f"{seed}/{number}/{follower}"), resume)
                for follower in range(FOLLOWERS)
            ]
        with client.stream("GET", f"/v1/runs/{run}/events") as response:
            whole = parse(response.read())
        assert [int(id_) for id_, _ in whole] == list(range(1, len(whole) + 1))
        for result in following:
            events, cut = result.result()
            cuts += cut
            total += len(events)
            if events != whole:
                wrong.append(f"{run}: {[id_ for id_, _ in events]}")
    return cuts, total, wrong


@pytest.mark.parametrize("dialect", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_stream_in_pieces_is_the_whole_stream(tmp_path: Path, dialect: str) -> None:
    seed = new_seed()
    with running(dialect, tmp_path / "data") as system, system.up.client() as client:
        cuts, total, wrong = followed(client, seed, lambda last: last)
    record(
        "A cut event stream is taken up where it ended",
        "tests/faults/test_resumed_streams.py",
        f"{dialect}: cut {cuts:,} times at random bytes, {total:,} events: {len(wrong)} streams differ from the run's",
        seed,
    )
    assert not wrong, wrong[:3]


def test_a_client_that_resumes_one_event_too_early_is_found_out(tmp_path: Path) -> None:
    with running("sqlite", tmp_path / "data") as system, system.up.client() as client:
        seed = new_seed()
        cuts, _, wrong = followed(client, seed, lambda last: str(int(last) - 1))
    assert wrong
    record(
        "A cut event stream is taken up where it ended, control",
        "tests/faults/test_resumed_streams.py",
        f"sqlite: cut {cuts:,} times, taken up one event too early: {len(wrong)} streams differ from the run's",
        seed,
    )
