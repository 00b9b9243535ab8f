"""Inside a capability: a repository is private to its room, and a model is plain Python."""

from __future__ import annotations

import pytest

from tests.architecture.rooms import beyond_the_standard_library, foreign_repositories
from tests.architecture.source import modules


def test_no_room_reaches_into_anothers_repository() -> None:
    found = {module: names for module, source in modules() if (names := foreign_repositories(module, source))}
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "from kgents.agents import repository",
        "from kgents.agents.repository import run_by_id",
        "import kgents.agents.repository",
        "def late():\n    from kgents.agents import repository as runs",
    ],
)
def test_catches_a_planted_import_of_a_repository(line: str) -> None:
    assert foreign_repositories("api/routes/planted.py", line)
    assert not foreign_repositories("agents/planted.py", line)


def test_models_are_plain_python() -> None:
    found = {
        module: names
        for module, source in modules()
        if module.endswith("/model.py") and (names := beyond_the_standard_library(module, source))
    }
    assert found == {}


@pytest.mark.parametrize("line", ["import sqlalchemy", "from pydantic import BaseModel", "import kgents.store.tables"])
def test_catches_a_planted_import_in_a_model(line: str) -> None:
    assert beyond_the_standard_library("agents/model.py", f"import json\n{line}")
