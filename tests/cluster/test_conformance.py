"""The conformance suite in a cluster."""

from __future__ import annotations

import pytest

from tests.cluster.installation import Installation
from tests.conformance.suite import (
    test_a_stream_in_pieces_is_the_whole_stream,
    test_exactly_as_many_runs_are_admitted_as_there_is_room_for,
    test_no_operation_reaches_another_tenants_objects,
    test_what_was_answered_is_there_and_metered_once,
)
from tests.support.reached import Reached

__all__ = [
    "test_a_stream_in_pieces_is_the_whole_stream",
    "test_exactly_as_many_runs_are_admitted_as_there_is_room_for",
    "test_no_operation_reaches_another_tenants_objects",
    "test_what_was_answered_is_there_and_metered_once",
]


@pytest.fixture
def system(installation: Installation) -> Reached:
    return installation
