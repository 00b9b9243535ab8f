"""Tenants, keys and agents from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.cli.conftest import unique
from tests.support.cli import Cli
from tests.support.waiting import wait_until


def test_a_tenant_is_created_changed_and_listed(cli: Cli) -> None:
    name = unique("acme")
    made = cli.json(
        "tenant", "create", name, "--quota", "runs=5", "--quota", "output_tokens=9", "--tokens-per-minute", 7
    )
    assert (made["quotas"], made["tokens_per_minute"]) == ({"runs": 5, "output_tokens": 9}, 7)
    changed = cli.json(
        "tenant", "update", made["id"], "--status", "suspended", "--quota", "runs=none", "--requests-per-minute", "3"
    )
    assert (changed["status"], changed["quotas"]) == ("suspended", {"output_tokens": 9})
    assert changed["requests_per_minute"] == 3
    assert cli.json("tenant", "get", made["id"]) == changed
    assert changed in cli.json("tenant", "list")
    line = next(line for line in cli("tenant", "list").stdout.splitlines() if made["id"] in line)
    assert line.split()[1:6] == [name, "suspended", "3", "7", "output_tokens=9"]


def test_a_key_is_created_rotated_and_revoked(tenant_cli: Callable[..., Cli]) -> None:
    cli = tenant_cli()
    made = cli.json("key", "create", "worker", "--role", "viewer", "--expires-at", "2100-01-01")
    assert made["expires_at"] == "2100-01-01T00:00:00.000000Z"
    assert cli("agent", "list", KGENTS_API_KEY=made["token"]).status == 0
    new = cli.json("key", "rotate", made["id"], "--overlap", "0")
    assert new["rotated_from"] == made["id"]
    wait_until(lambda: cli("agent", "list", KGENTS_API_KEY=made["token"]).status == 1, what="the old key has ended")
    assert cli("agent", "list", KGENTS_API_KEY=new["token"]).status == 0
    assert cli.json("key", "revoke", new["id"])["status"] == "revoked"
    wait_until(lambda: cli("agent", "list", KGENTS_API_KEY=new["token"]).status == 1, what="the new key is revoked")
    assert "kgents key create" in cli("key", "rotate", new["id"]).complaint
    listed = {key["id"]: key["status"] for key in cli.json("key", "list")}
    assert (listed[made["id"]], listed[new["id"]]) == ("expired", "revoked")


def test_a_key_of_scopes_may_do_only_those(tenant_cli: Callable[..., Cli]) -> None:
    cli = tenant_cli()
    made = cli.json("key", "create", "narrow", "--scope", "runs:read", "--scope", "usage:read")
    assert made["scopes"] == ["runs:read", "usage:read"]
    assert "agents:read" in cli("agent", "list", KGENTS_API_KEY=made["token"]).complaint


def test_a_token_is_shown_whole_on_a_narrow_terminal_beside_a_warning(tenant_cli: Callable[..., Cli]) -> None:
    terminal = tenant_cli().terminal("key", "create", "k", columns=40)
    assert terminal.end() == 0
    line = next(line for line in terminal.text.splitlines() if line.startswith("token"))
    assert len(line.split()[1]) == 69
    assert "shown only now" in terminal.text


def test_an_agent_is_created_from_options_changed_and_deleted(cli: Cli) -> None:
    name = unique("clerk")
    made = cli.json("agent", "create", name, "--tool", "calculator", "--instructions", "You reckon.")
    assert (made["model"], made["instructions"]) == ("kgents:echo", "You reckon.")
    assert made["tools"] == [{"type": "builtin", "name": "calculator"}]
    assert cli.json("agent", "update", name, "--instructions", "")["version"] == 2
    assert [version["instructions"] for version in cli.json("agent", "versions", name)] == ["You reckon.", ""]
    assert cli.json("agent", "delete", made["id"])["id"] == made["id"]
    assert "kgents agent list" in cli("agent", "get", name).complaint


def test_an_agent_is_created_from_a_file_which_options_override(cli: Cli, tmp_path: Path) -> None:
    file, schema = tmp_path / "agent.json", tmp_path / "schema.json"
    file.write_text(json.dumps({"model": "kgents:echo", "description": "Größe", "instructions": "from the file"}))
    schema.write_text(json.dumps({"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}))
    name = unique("filed")
    made = cli.json("agent", "create", name, "--file", file, "--output-schema", schema, "--instructions", "given")
    assert (made["name"], made["description"], made["instructions"]) == (name, "Größe", "given")
    assert made["output_schema"]["required"] == ["sum"]
    assert cli.json("run", "create", name, "anything")["output"]["text"] == '{"sum":0}'


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"{", "is not JSON"),
        (b"[1]", "holds no JSON object"),
        (b"\xff\xfe", "is not JSON"),
    ],
)
def test_a_file_that_is_no_definition_is_a_wrong_use(cli: Cli, tmp_path: Path, content: bytes | None, why: str) -> None:
    file = tmp_path / "agent.json"
    if content is not None:
        file.write_bytes(content)
    for option in ("--file", "--output-schema"):
        done = cli("agent", "create", unique("x"), option, file)
        assert done.status == 2
        assert why in done.stderr
        assert "Traceback" not in done.stderr


def test_a_name_is_data_in_the_address(cli: Cli) -> None:
    made = cli.json("agent", "create", unique("kept"))
    for trick in (f"{made['id']}?x=1", f"{made['id']}#x", f"x/../{made['id']}", "%2e%2e", "ключ", " "):
        assert cli("agent", "delete", trick).status == 1, trick
    assert cli("agent", "get", made["id"]).status == 0


def test_what_a_terminal_would_obey_is_shown_instead(cli: Cli) -> None:
    name = unique("escape")
    cli.json("agent", "create", name, "--instructions", "a\x1b[31mb\x07\nc")
    shown = cli("agent", "get", name).stdout
    assert "\x1b" not in shown
    assert "instructions   a\\x1b[31mb\\x07\n               c\n" in shown
