"""`kgents login` and contexts."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.contract.cli.conftest import access
from tests.support.cli import Cli
from tests.support.ports import free_port
from tests.support.up import Up


@pytest.fixture
def kept(stranger: Cli) -> Path:
    return stranger.folder / "config" / "contexts.json"


def test_login_keeps_url_and_key_for_the_user_alone(stranger: Cli, up: Up, kept: Path) -> None:
    done = stranger("login", up.url + "/", stdin=up.key + "\n")
    assert done.status == 0
    assert "tenant 'default'" in done.stderr
    assert up.key not in done.stderr + done.stdout
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert list(kept.parent.iterdir()) == [kept]
    assert json.loads(kept.read_text()) == {
        "current": "default",
        "contexts": {"default": {"url": up.url, "api_key": up.key, "admin_key": ""}},
    }
    assert stranger.json("agent", "get", "echo")["name"] == "echo"


def test_login_on_a_terminal_asks_for_the_key_without_showing_it(stranger: Cli, up: Up, kept: Path) -> None:
    terminal = stranger.terminal("login", up.url)
    terminal.read_until("API key: ")
    terminal.type(up.key + "\n")
    assert terminal.end() == 0
    assert up.key not in terminal.text
    assert kept.exists()


@pytest.mark.parametrize("key", ["kg_wrong", "", "ключ"])
def test_login_with_a_wrong_key_keeps_nothing(stranger: Cli, up: Up, kept: Path, key: str) -> None:
    done = stranger("login", up.url, stdin=key + "\n")
    assert "key" in done.complaint
    assert not kept.exists()


def test_login_with_a_wrong_admin_key_keeps_nothing(stranger: Cli, up: Up, kept: Path) -> None:
    assert "platform:admin" in stranger("login", up.url, "--admin-key", up.key, KGENTS_API_KEY=up.key).complaint
    assert not kept.exists()


@pytest.mark.parametrize("url", ["agents.example.com", "ftp://host", "http://", "http://a:b:c", "http://host:99999"])
def test_login_at_what_is_no_address_is_refused_before_the_key_is_asked_for(stranger: Cli, url: str) -> None:
    assert "is not an address" in stranger("login", url).complaint


def test_login_where_nothing_answers_says_so(stranger: Cli, kept: Path) -> None:
    assert "No answer from" in stranger("login", f"http://127.0.0.1:{free_port()}", stdin="kg_a_b\n").complaint
    assert not kept.exists()


def test_the_context_is_chosen_by_use_and_by_option(stranger: Cli, up: Up) -> None:
    stranger("login", up.url, "--name", "one", KGENTS_API_KEY=up.key)
    stranger("login", up.url, "--name", "two", "--admin-key", str(up.facts["admin_key"]), KGENTS_API_KEY=up.key)
    assert [(row["name"], row["current"]) for row in stranger.json("context", "list")] == [
        ("one", False),
        ("two", True),
    ]
    assert stranger("tenant", "list").status == 0
    assert "'one' has none" in stranger("tenant", "list", "--context", "one").complaint
    assert stranger("context", "use", "one").status == 0
    assert "'one' has none" in stranger("tenant", "list").complaint
    assert stranger("tenant", "list", "--context", "two").status == 0


def test_variables_come_before_the_current_context_and_a_named_one_before_them(stranger: Cli, up: Up) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    stranger("login", up.url, "--name", "here", KGENTS_API_KEY=up.key)
    assert dead in stranger("agent", "list", KGENTS_URL=dead, KGENTS_API_KEY=up.key).complaint
    assert stranger("agent", "list", "--context", "here", KGENTS_URL=dead, KGENTS_API_KEY=up.key).status == 0


def test_a_url_without_a_key_is_not_mixed_with_the_current_context(stranger: Cli, up: Up) -> None:
    stranger("login", up.url, KGENTS_API_KEY=up.key)
    assert "Set KGENTS_API_KEY" in stranger("agent", "list", KGENTS_URL=up.url).complaint


def test_without_any_context_the_next_command_is_told(stranger: Cli) -> None:
    complaint = stranger("agent", "list").complaint
    assert "kgents up" in complaint
    assert "kgents login URL" in complaint


def test_an_unknown_context_is_refused(cli: Cli) -> None:
    assert "There is no context 'nope'" in cli("agent", "list", "--context", "nope").complaint
    assert "kgents context list" in cli("context", "use", "nope").complaint


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '{"current": 1}', '{"current": "", "contexts": {"a": 1}}'])
def test_a_damaged_file_of_contexts_says_what_to_do(stranger: Cli, kept: Path, text: str) -> None:
    kept.parent.mkdir()
    kept.write_text(text)
    assert "can't be read. Remove it" in stranger("context", "list").complaint


def test_a_folder_that_is_a_file_is_not_taken_for_an_empty_one(stranger: Cli, kept: Path) -> None:
    kept.parent.write_text("a file where the folder should be")
    assert "can't be read: Not a directory. Set KGENTS_CONFIG_DIR" in stranger("context", "list").complaint


def test_a_folder_that_cannot_be_written_says_what_to_do(stranger: Cli, up: Up, kept: Path) -> None:
    kept.parent.write_text("a file where the folder should be")
    assert "KGENTS_CONFIG_DIR" in stranger("login", up.url, **access(up)).complaint
