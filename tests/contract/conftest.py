"""Fixtures with a whole kgents."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.up import Up


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running kgents, shared by tests that each make the agents and tenants that they need."""
    running = Up(tmp_path_factory.mktemp("up")).start()
    yield running
    running.stop()
