"""The command line against a whole kgents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kgents.ids import new_id
from tests.support.cli import Cli
from tests.support.up import Up


@pytest.fixture
def cli(up: Up, tmp_path: Path) -> Cli:
    """`kgents`, told by variables which kgents to use."""
    return Cli(tmp_path, **access(up))


@pytest.fixture
def stranger(tmp_path: Path) -> Cli:
    """`kgents` of somebody who has not logged in."""
    return Cli(tmp_path)


@pytest.fixture
def tenant_cli(cli: Cli, up: Up, tmp_path: Path) -> Callable[..., Cli]:
    """Makes a new tenant, with the options of `tenant create`, and an agent `echo`; gives the tenant's `kgents`."""

    def make(*options: str) -> Cli:
        tenant = cli.json("tenant", "create", unique("tenant"), *options)["id"]
        key = cli.json("key", "create", "first", "--role", "owner", "--tenant", tenant)["token"]
        made = Cli(tmp_path, **{**access(up), "KGENTS_API_KEY": key})
        made.json("agent", "create", "echo")
        return made

    return make


@pytest.fixture(scope="module")
def own_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A kgents for the tests of one module, which may harm it."""
    running = Up(tmp_path_factory.mktemp("own_up")).start()
    yield running
    running.stop()


def access(up: Up) -> dict[str, str]:
    """The variables that lead to a kgents."""
    return {"KGENTS_URL": up.url, "KGENTS_API_KEY": up.key, "KGENTS_ADMIN_KEY": str(up.facts["admin_key"])}


def unique(prefix: str) -> str:
    """A name that no other test uses."""
    return new_id(prefix).lower().replace("_", "-")
