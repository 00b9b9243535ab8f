"""Runs outlive the processes that carry them out, and every token of theirs is counted once."""

from __future__ import annotations

import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2

from tests.support.events import read_events
from tests.support.reached import METERS
from tests.support.up import UNMEASURED, Up
from tests.support.waiting import wait_until

SLOW = "/sleep 0.05 /words 60"  # about 3 s


def session_of(client: httpx2.Client) -> str:
    return str(client.post("/v1/sessions", json={"agent": "echo"}).raise_for_status().json()["id"])


def background(client: httpx2.Client, text: str) -> str:
    body = {"input": text, "mode": "background"}
    answer = client.post(f"/v1/sessions/{session_of(client)}/runs", json=body)
    assert answer.status_code == 202
    return str(answer.json()["id"])


def run_of(client: httpx2.Client, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/v1/runs/{run_id}").raise_for_status().json()
    return found


def await_status(client: httpx2.Client, run_id: str, *statuses: str, seconds: float = 60) -> dict[str, Any]:
    def reached() -> dict[str, Any] | None:
        try:
            run = run_of(client, run_id)
        except httpx2.HTTPError:
            return None  # the API is being restarted
        return run if run["status"] in statuses else None

    found: dict[str, Any] = wait_until(reached, seconds=seconds, what=f"run {run_id} is {statuses}")
    return found


def ledger(client: httpx2.Client) -> dict[str, int]:
    rows = client.get("/v1/usage", params={"window": "month"}).raise_for_status().json()["data"]
    return dict.fromkeys(METERS, 0) | {row["meter"]: row["quantity"] for row in rows}


def tenant_of(client: httpx2.Client) -> str:
    return str(client.get("/v1/tenant").raise_for_status().json()["id"])


def assert_ledger_is_metered(up: Up, client: httpx2.Client, *, runs: int) -> None:
    up.settled()
    found = ledger(client)
    assert found["runs"] == runs
    wait_until(lambda: up.metered(tenant_of(client)) == found, what="the meter has what the ledger has")
    assert all(meter["reserved"] == 0 for meter in client.get("/v1/usage/balance").json()["meters"])


def test_a_restart_in_the_middle_of_100_background_runs_loses_none(system: Up) -> None:
    with system.client() as client:
        with ThreadPoolExecutor(8) as pool:
            runs = list(
                pool.map(lambda number: background(client, f"/sleep 0.02 /words {20 + number % 7}"), range(100))
            )
        await_status(client, runs[0], "running", "completed")
        assert system.stop() == 0
        system.start()
        for run in runs:
            assert await_status(client, run, "completed", "failed")["status"] == "completed"
        assert_ledger_is_metered(system, client, runs=100)


def test_a_killed_worker_has_its_run_finished_by_another(system: Up) -> None:
    with system.client() as client:
        run = background(client, SLOW)
        await_status(client, run, "running")
        os.kill(system.pid("worker"), signal.SIGKILL)
        assert await_status(client, run, "completed", "failed")["output"]["text"].count(" ") == 59
        assert_ledger_is_metered(system, client, runs=1)


def test_a_killed_api_has_its_run_finished_by_a_worker(system: Up) -> None:
    with system.client() as client:
        body = {"input": SLOW, "mode": "stream"}
        with client.stream("POST", f"/v1/sessions/{session_of(client)}/runs", json=body) as response:
            run = response.headers["x-run-id"]
            next(response.iter_lines())
            os.kill(system.pid("api"), signal.SIGKILL)
        assert await_status(client, run, "completed", "failed")["status"] == "completed"
        assert_ledger_is_metered(system, client, runs=1)


def test_a_killed_bus_loses_nothing(system: Up) -> None:
    with system.client() as client:
        for _ in range(20):
            client.post("/v1/chat/completions", json=hello()).raise_for_status()
        os.kill(system.pid("nats"), signal.SIGKILL)
        for _ in range(20):
            client.post("/v1/chat/completions", json=hello()).raise_for_status()
        assert_ledger_is_metered(system, client, runs=40)


def hello() -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


def test_a_killed_meter_loses_nothing(system: Up) -> None:
    with system.client() as client:
        for number in range(40):
            if number == 20:
                os.kill(system.pid("meter"), signal.SIGKILL)
            client.post("/v1/chat/completions", json=hello()).raise_for_status()
        assert_ledger_is_metered(system, client, runs=40)


def test_a_stream_is_resumed_after_its_connection_and_its_process_were_lost(system: Up) -> None:
    with system.client() as client:
        body = {"input": SLOW, "mode": "stream"}
        seen = []
        with client.stream("POST", f"/v1/sessions/{session_of(client)}/runs", json=body) as response:
            run = response.headers["x-run-id"]
            for event in read_events(response):
                seen.append(event)
                if len(seen) == 10:
                    break
        # The client is gone, the run goes on; now its process is asked to stop, and hands it over.
        os.kill(system.pid("api"), signal.SIGTERM)
        wait_until(lambda: ended(client, run, seen), seconds=30, what="the stream has been read to its end")
        assert [int(event.id) for event in seen] == list(range(1, len(seen) + 1))
        assert seen[-1].type == "run.completed"
        said = "".join(event.data["text"] for event in after_last_restart(seen) if event.type == "text.delta")
        assert said == seen[-1].data["output"]["text"]


def ended(client: httpx2.Client, run: str, seen: list[Any]) -> bool:
    """Read on after the last event seen, as an EventSource does when its connection breaks or can't be made."""
    headers = {"Last-Event-ID": seen[-1].id}
    with (
        contextlib.suppress(httpx2.HTTPError),
        client.stream("GET", f"/v1/runs/{run}/events", headers=headers) as response,
    ):
        seen.extend(read_events(response.raise_for_status()))  # up to where it breaks
    return seen[-1].type in ("run.completed", "run.failed")


def after_last_restart(events: list[Any]) -> list[Any]:
    starts = [index for index, event in enumerate(events) if event.type == "run.restarted"]
    return events[starts[-1] :] if starts else events


def test_two_followers_of_a_background_run_see_the_same_events_from_the_first(system: Up) -> None:
    with system.client() as client:
        run = background(client, "/sleep 0.02 /words 30")

        def follow() -> list[Any]:
            with client.stream("GET", f"/v1/runs/{run}/events") as response:
                return list(read_events(response))

        with ThreadPoolExecutor(2) as pool:
            first, second = (future.result() for future in [pool.submit(follow) for _ in range(2)])
        late = follow()
        assert first == second == late
        assert [int(event.id) for event in first] == list(range(1, len(first) + 1))
        assert first[-1].data["output"]["text"] == "".join(e.data["text"] for e in first if e.type == "text.delta")


def test_a_run_of_a_worker_is_cancelled_through_the_api(system: Up) -> None:
    with system.client() as client:
        run = background(client, "/sleep 0.1 /words 200")
        await_status(client, run, "running")
        client.post(f"/v1/runs/{run}/cancel").raise_for_status()
        ended = await_status(client, run, "cancelled", "completed", "failed", seconds=10)
        assert ended["status"] == "cancelled"
        assert_ledger_is_metered(system, client, runs=1)


def test_a_client_that_goes_away_does_not_lose_the_runs_usage(system: Up) -> None:
    with system.client() as client:
        body = {**hello(), "stream": True}
        body["messages"] = [{"role": "user", "content": "/sleep 0.02 /words 30"}]
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            run = response.headers["x-run-id"]
            next(response.iter_lines())
        ended = await_status(client, run, "completed")
        assert ended["usage"]["output_tokens"] == ledger(client)["output_tokens"] >= 30


def test_an_api_that_is_asked_to_stop_lets_its_runs_end(system: Up) -> None:
    with system.client() as client, ThreadPoolExecutor(1) as pool:
        body = {"model": "echo", "messages": [{"role": "user", "content": "/sleep 0.1 /words 20"}]}
        asked = pool.submit(client.post, "/v1/chat/completions", json=body)
        running = {"status": "running"}
        wait_until(lambda: client.get("/v1/runs", params=running).json()["data"], what="the run is going on")
        os.kill(system.pid("api"), signal.SIGTERM)
        assert asked.result().raise_for_status().json()["usage"]["completion_tokens"] >= 20


def test_an_api_that_is_asked_to_stop_answers_on_for_its_delay_and_sends_its_clients_away(tmp_path: Path) -> None:
    up = Up(tmp_path / "data", environment=UNMEASURED | {"KGENTS_SHUTDOWN_DELAY": "5"}).start()
    try:
        with up.client() as client:
            assert "connection" not in client.post("/v1/chat/completions", json=hello()).headers
            os.kill(up.pid("api"), signal.SIGTERM)

            def sent_away() -> bool:
                answer = client.post("/v1/chat/completions", json=hello()).raise_for_status()
                return answer.headers.get("connection") == "close"

            wait_until(sent_away, seconds=4, what="an answer asks for its connection to be closed")
            assert httpx2.get(f"{up.url}/health/saas", trust_env=False).status_code == 503
    finally:
        up.stop()
