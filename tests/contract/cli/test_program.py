"""The program itself: what it imports, and completion in shells."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import kgents
from tests.contract.cli.conftest import access
from tests.support.cli import Cli
from tests.support.up import Up

HEAVY = ("pydantic_ai", "fastapi", "sqlalchemy", "uvicorn", "nats", "opentelemetry")
IMPORTS = """
import sys
from kgents.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print("imported:", *sorted(name for name in sys.modules if "." not in name), file=sys.stderr)
    raise
"""


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "usage show --help",
        "tenant list",
        "agent get echo",
        "chat echo hi",
        "health",
        "usage show",
        "context list",
        "logs --help",
        "top --help",
    ],
)
def test_commands_over_http_do_not_import_the_server(up: Up, tmp_path: Path, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, *command.split()],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "KGENTS_CONFIG_DIR": str(tmp_path), **access(up)},
    )
    assert done.returncode == 0, done.stderr
    imported = set(done.stderr.rpartition("imported:")[2].split())
    assert "typer" in imported
    assert imported.isdisjoint(HEAVY)
    if "--help" in command:
        assert imported.isdisjoint(("rich", "httpx2", "yaml"))
    if command == "--help":
        assert "pydantic" not in imported  # which Typer converts the arguments of a command with
        assert len(imported) < 120  # how long it takes is a benchmark (starting); this is what it takes it for


def test_help_names_every_command(stranger: Cli) -> None:
    done = stranger("--help")
    shown = [line.split()[0] for line in done.stdout.partition("Commands:")[2].splitlines() if line.strip()]
    assert shown == [
        *("up", "chat", "login", "health", "logs", "top", "migrate", "backup", "restore", "completion"),
        *("tenant", "key", "agent", "run", "context", "usage", "plan", "subscription", "invoice", "serve"),
        *("deploy", "secrets", "autoscale", "ready", "scan", "loadtest", "capacity"),
    ]
    assert "..." not in done.stdout.partition("Commands:")[2]
    assert stranger().stdout + stranger().stderr == done.stdout


def test_the_version(stranger: Cli) -> None:
    assert stranger("--version").stdout == f"kgents {kgents.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_completion_script(stranger: Cli, shell: str) -> None:
    done = stranger("completion", shell)
    assert done.status == 0
    assert f"complete_{shell}" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("kgents ag", {"agent"}),
        ("kgents tenant ", {"create", "list", "get", "update", "export", "erase", "erased"}),
        ("kgents usage show --window ", {"hour", "day", "month"}),
    ],
)
def test_bash_completes(stranger: Cli, tmp_path: Path, words: str, expected: set[str]) -> None:
    program = tmp_path / "bin" / "kgents"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kgents.cli.main "$@"\n')
    program.chmod(0o755)
    script = tmp_path / "completion.bash"
    script.write_text(stranger("completion", "bash").stdout)
    asked = words.split(" ")
    program_text = f"""
source {script}
COMP_WORDS=({" ".join(asked[:-1])} "{asked[-1]}")
COMP_CWORD={len(asked) - 1}
function=$(complete -p kgents | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
$function kgents
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "--norc", "-c", program_text],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"},
    )
    assert set(done.stdout.split()) == expected, done.stderr
