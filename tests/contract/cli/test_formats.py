"""`-o table|json|yaml` of everything that shows data: the same data in each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.contract.cli.conftest import unique
from tests.support.cli import Cli
from tests.support.up import Up

PERIOD = ("--from", "2020-01-01", "--to", "2100-01-01", "--window", "month")
LISTS = [
    ("tenant", "list"),
    ("key", "list"),
    ("agent", "list"),
    ("agent", "versions", "echo"),
    ("run", "list", "--most", "1"),
    ("usage", "show"),
    ("usage", "balance"),
    ("usage", "events", "--most", "1"),
]
DOCUMENTS = [("tenant", "get", "ten_platform"), ("agent", "get", "echo")]


@pytest.fixture(scope="module", autouse=True)
def some_usage(up: Up) -> None:
    with up.client() as client:
        client.post("/v1/responses", json={"model": "echo", "input": "hello"}).raise_for_status()
    up.settled()


def _items(found: Any) -> list[dict[str, Any]]:
    if isinstance(found, list):
        return found
    items: list[dict[str, Any]] = found["meters"] if "meters" in found else found["data"]
    return items


@pytest.mark.parametrize("command", LISTS, ids=" ".join)
def test_a_list_is_the_same_data_in_json_and_yaml(cli: Cli, command: tuple[str, ...]) -> None:
    as_json, as_yaml = cli(*command, "-o", "json"), cli(*command, "-o", "yaml")
    assert (as_json.status, as_yaml.status) == (0, 0)
    first, second = as_json.json(), yaml.safe_load(as_yaml.stdout)
    for found in (first, second):
        for item in _items(found):
            item.pop("last_used_at", None)  # it moves on with each command
        if isinstance(found, dict):
            found.pop("to", None)
    assert first == second
    assert _items(first)


@pytest.mark.parametrize("command", LISTS, ids=" ".join)
def test_a_list_as_a_table_has_a_line_of_headings_and_one_for_each_item(cli: Cli, command: tuple[str, ...]) -> None:
    items = _items(cli.json(*command))
    done = cli(*command)
    lines = done.stdout.splitlines()
    assert done.status == 0
    assert len(lines) == 1 + len(items)
    assert lines[0] == lines[0].upper()
    assert all(line == line.rstrip() for line in lines)
    first = items[0].get("id") or items[0]["meter"]
    assert any(str(first) in line.split() for line in lines[1:])


@pytest.mark.parametrize("command", DOCUMENTS, ids=" ".join)
def test_a_document_has_a_line_for_each_field_as_a_table(cli: Cli, command: tuple[str, ...]) -> None:
    found = cli.json(*command)
    assert yaml.safe_load(cli(*command, "-o", "yaml").stdout) == found
    assert [line.split()[0] for line in cli(*command).stdout.splitlines()] == list(found)


def test_contexts_have_all_formats(up: Up, stranger: Cli) -> None:
    assert stranger("login", up.url, "--name", "here", KGENTS_API_KEY=up.key).status == 0
    expected = [{"current": True, "name": "here", "url": up.url}]
    assert stranger.json("context", "list") == expected
    assert yaml.safe_load(stranger("context", "list", "-o", "yaml").stdout) == expected
    assert stranger("context", "list").stdout.splitlines()[1].split() == ["yes", "here", up.url]


def test_health_has_all_formats(cli: Cli) -> None:
    found = cli.json("health")
    assert set(found["components"]) == set(yaml.safe_load(cli("health", "-o", "yaml").stdout)["components"])
    shown = [line.split()[:2] for line in cli("health").stdout.splitlines()[1:]]
    assert shown == [[name, facts["status"]] for name, facts in found["components"].items()]


def test_reconcile_without_differences_has_all_formats(cli: Cli, up: Up) -> None:
    command = ("usage", "reconcile", *PERIOD)
    data = {"KGENTS_DATA_DIR": str(up.data)}
    up.settled()
    assert cli.json(*command, **data) == []
    assert yaml.safe_load(cli(*command, "-o", "yaml", **data).stdout) == []
    done = cli(*command, **data)
    assert (done.status, done.stdout) == (0, "")
    assert "windows compared, 0 differ" in done.stderr


def test_an_empty_list_says_so_beside_the_data(cli: Cli) -> None:
    done = cli("usage", "events", "--run", "run_nobody")
    assert (done.status, done.stdout, done.stderr) == (0, "", "none\n")
    assert json.loads(cli("usage", "events", "--run", "run_nobody", "-o", "json").stdout) == []


def test_a_list_longer_than_a_page_is_whole(cli: Cli) -> None:
    tenant = cli.json("tenant", "create", unique("pages"))["id"]
    created = [cli.json("key", "create", f"k{number}", "--tenant", tenant) for number in range(3)]
    key = cli.json("key", "create", "reader", "--role", "viewer", "--tenant", tenant)
    listed = cli.json("key", "list", KGENTS_API_KEY=key["token"])
    assert [item["id"] for item in listed] == [item["id"] for item in [*created, key]]


def test_a_table_on_a_narrow_terminal_leaves_ids_whole(tenant_cli: Callable[..., Cli]) -> None:
    cli = tenant_cli()
    found = cli.json("key", "list")[0]
    terminal = cli.terminal("key", "list", columns=130)
    assert terminal.end() == 0
    assert found["id"] in terminal.text
    lines = terminal.text.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()
    assert [line for line in lines if len(line) > 130] == []


def test_no_color_is_respected_and_a_pipe_gets_no_escapes(cli: Cli) -> None:
    terminal = cli.terminal("health", columns=160, NO_COLOR="1")
    terminal.end()
    assert "\x1b[3" not in terminal.text
    assert "\x1b" not in cli("health", FORCE_COLOR="1").stdout
