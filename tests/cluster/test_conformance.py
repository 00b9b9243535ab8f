"""The conformance suite in a cluster."""

from __future__ import annotations

import pytest

from tests.cluster.installation import Installation
from tests.conformance.suite import *  # noqa: F403 - a test that is added there is to run here
from tests.support.reached import Reached


@pytest.fixture
def system(installation: Installation) -> Reached:
    return installation
