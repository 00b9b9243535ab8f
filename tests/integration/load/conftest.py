"""A kgents to load, and the program that loads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import vegeta as programs
from tests.support.up import UNMEASURED, Up


@pytest.fixture(scope="session")
def vegeta() -> Path:
    """The load generator."""
    return programs.build()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running `kgents up`."""
    running = Up(tmp_path_factory.mktemp("up") / "data", environment=UNMEASURED)
    running.start()
    yield running
    running.stop()
