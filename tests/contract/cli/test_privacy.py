"""What `kgents tenant erase` asks for before it erases, and what it refuses."""

from __future__ import annotations

from pathlib import Path

from tests.contract.cli.conftest import unique
from tests.support.cli import Cli
from tests.support.up import Up


def test_erasing_needs_the_name_of_the_tenant(cli: Cli, up: Up) -> None:
    name = unique("tenant")
    tenant = cli.json("tenant", "create", name)["id"]
    data = {"KGENTS_DATA_DIR": str(up.data)}
    assert "--yes-erase NAME" in cli("tenant", "erase", tenant, **data).complaint
    terminal = cli.terminal("tenant", "erase", tenant, **data)
    terminal.read_until("Type its name: ")
    terminal.type("another\n")
    assert terminal.end() == 1
    assert "Nothing was erased" in terminal.text
    assert cli.json("tenant", "get", tenant)["status"] == "active"


def test_without_settings_it_says_what_to_set(stranger: Cli, tmp_path: Path) -> None:
    refused = stranger("tenant", "erased", KGENTS_DATA_DIR=str(tmp_path / "none")).complaint
    assert "KGENTS_DATA_DIR" in refused


def test_either_a_tenant_or_all_again(stranger: Cli) -> None:
    for arguments in ((), ("ten_x", "--again")):
        assert stranger("tenant", "erase", *arguments).status == 2
