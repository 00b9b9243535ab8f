"""`kgents run`."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

import pytest

from tests.support.cli import Cli
from tests.support.up import UNMEASURED
from tests.support.waiting import wait_until


@pytest.fixture
def cli(tenant_cli: Callable[..., Cli]) -> Cli:
    """`kgents` of a tenant with no other runs."""
    return tenant_cli()


def test_a_run_answers_and_is_listed(cli: Cli) -> None:
    made = cli.json("run", "create", "echo", "hello there")
    assert (made["status"], made["output"]["text"]) == ("completed", "hello there")
    assert [run["id"] for run in cli.json("run", "list")] == [made["id"]]
    assert cli.json("run", "list", "--status", "failed") == []
    assert cli.json("run", "list", "--session", made["session_id"])[0]["id"] == made["id"]
    assert cli.json("run", "get", made["id"])["output"] == made["output"]


def test_a_run_goes_on_in_a_session(cli: Cli) -> None:
    first = cli.json("run", "create", "echo", "one")
    second = cli.json("run", "create", "echo", "two", "--session", first["session_id"])
    assert second["session_id"] == first["session_id"]
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]


def test_a_run_that_fails_exits_with_1_and_says_why(cli: Cli) -> None:
    done = cli("run", "create", "echo", "/fail 500", "-o", "json")
    assert done.json()["status"] == "failed"
    assert done.complaint == f"kgents: {done.json()['error']['detail']}"


def test_a_background_run_is_followed_to_its_end(cli: Cli) -> None:
    made = cli.json("run", "create", "echo", "/sleep 0.1 a b c", "--background")
    assert made["status"] == "queued"
    done = cli("run", "events", made["id"])
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.status == 0
    assert (events[0]["type"], events[-1]["type"]) == ("run.created", "run.completed")
    assert "".join(event["data"]["text"] for event in events if event["type"] == "text.delta") == "a b c"
    assert [int(event["id"]) for event in events] == list(range(1, len(events) + 1))
    rest = cli("run", "events", made["id"], "--after", events[1]["id"]).stdout.splitlines()
    assert [json.loads(line) for line in rest] == events[2:]


def test_after_the_last_event_there_is_nothing(cli: Cli) -> None:
    made = cli.json("run", "create", "echo", "hello", "--background")
    last = json.loads(cli("run", "events", made["id"]).stdout.splitlines()[-1])["id"]
    rest = cli("run", "events", made["id"], "--after", last)
    assert (rest.status, rest.stdout) == (0, "")


def test_a_background_run_is_cancelled(cli: Cli) -> None:
    made = cli.json("run", "create", "echo", "/sleep 5 a b c d", "--background")
    assert cli.json("run", "cancel", made["id"])["cancel_requested"] is True
    wait_until(lambda: cli.json("run", "get", made["id"])["status"] == "cancelled", what="the run is cancelled")
    finished = cli.json("run", "create", "echo", "done")
    assert "has already completed" in cli("run", "cancel", finished["id"]).complaint


def test_ctrl_c_ends_following_quietly_and_the_run_goes_on(cli: Cli) -> None:
    made = cli.json("run", "create", "echo", "/sleep 0.5 /words 200", "--background")  # 100 s: it doesn't end by itself
    with cli.start("run", "events", made["id"], **UNMEASURED) as process:
        assert process.stdout is not None
        seen = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, b"")

    last = ([seen["id"]] + [json.loads(line)["id"] for line in rest.splitlines()])[-1]
    with cli.start("run", "events", made["id"], "--after", last) as going_on:
        assert going_on.stdout is not None
        assert json.loads(going_on.stdout.readline())["type"] != "run.cancelled"
        cli("run", "cancel", made["id"])
        assert json.loads(going_on.communicate(timeout=30)[0].splitlines()[-1])["type"] == "run.cancelled"


def test_a_terminal_shows_that_a_run_is_going_on(cli: Cli) -> None:
    terminal = cli.terminal("run", "create", "echo", "/sleep 0.3 a b")
    assert terminal.end() == 0
    assert "echo is running" in terminal.text
    assert "completed" in terminal.text
    assert "is running" not in cli("run", "create", "echo", "hi").stderr
