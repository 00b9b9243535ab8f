"""The conformance suite on `kgents up`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.suite import *  # noqa: F403 - a test that is added there is to run here
from tests.isolation.systems import running
from tests.support.reached import Reached


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reached]:
    with running("sqlite", tmp_path_factory.mktemp("conformance")) as made:
        yield made.up
