"""The whole OpenAPI document against a running kgents: no 5xx, every answer as documented, no way around the key."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.up import Up

HERE = Path(__file__).parent
CALLERS = ("api_key", "admin_key")
# These stop or throttle the key that the rest is called with, since schemathesis uses the ids that it is shown.
STOP_THE_KEY = ("revoke_api_key", "rotate_api_key", "update_tenant")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A kgents of its own, which is left full of odd things."""
    running = Up(tmp_path_factory.mktemp("fuzzed")).start()
    yield running
    running.stop()


@pytest.mark.parametrize("caller", CALLERS)
def test_the_api_does_what_its_document_says(up: Up, caller: str, tmp_path: Path) -> None:
    fuzz(up, caller, "--exclude-operation-id", tmp_path)


def test_the_operations_that_stop_keys_do_too(up: Up, tmp_path: Path) -> None:
    fuzz(up, "admin_key", "--include-operation-id", tmp_path)


def fuzz(up: Up, caller: str, choice: str, folder: Path) -> None:
    seed = secrets.randbelow(2**31)
    command = [Path(sys.executable).with_name("schemathesis"), "--config-file", HERE / "schemathesis.toml", "run"]
    command += [f"{up.url}/openapi.json", "-H", f"Authorization: Bearer {up.facts[caller]}", "--checks", "all"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "20", "--seed", str(seed)]
    for operation in STOP_THE_KEY:
        command += [choice, operation]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=600, cwd=folder)
    report = "\n".join(line[:500] for line in done.stdout.splitlines())
    assert done.returncode == 0, f"seed {seed}\n{report[-8000:]}\n{done.stderr[-2000:]}"
