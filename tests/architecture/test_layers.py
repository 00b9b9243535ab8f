"""import-linter holds the layers: it passes the product (see test_lint), and catches a violation that is planted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source import PACKAGE, ROOT

LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the product and of its configuration, to plant in."""
    shutil.copytree(PACKAGE, tmp_path / "kgents", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT_IMPORTS, "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def plant(folder: Path, module: str, line: str) -> None:
    path = folder / "kgents" / module
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(f"\n{line}\n")


@pytest.mark.parametrize(
    ("module", "line", "said"),
    [
        ("errors.py", "import kgents.store.engine", "kgents.errors -> kgents.store.engine"),
        ("tenants/planted.py", "from kgents.agents import service", "kgents.tenants.planted -> kgents.agents.service"),
        ("bus/planted.py", "import kgents.store.tables", "kgents.bus.planted -> kgents.store.tables"),
        ("workers/planted.py", "import kgents.api.app", "kgents.workers.planted -> kgents.api.app"),
        (
            "meter/planted.py",
            "def f():\n    import kgents.usage.model",
            "kgents.meter.planted -> kgents.usage.model",
        ),
    ],
    ids=["the base knows a room", "upwards", "sideways", "api from workers", "inside a function"],
)
def test_catches_an_import_against_the_layers(copy: Path, module: str, line: str, said: str) -> None:
    plant(copy, module, line)
    answer = lint(copy)
    assert answer.returncode == 1, answer.stderr
    assert said in " ".join(answer.stdout.split())


def test_catches_a_room_that_is_in_no_layer(copy: Path) -> None:
    plant(copy, "attic/__init__.py", "")
    answer = lint(copy)
    assert answer.returncode == 1
    assert "attic" in answer.stdout + answer.stderr
