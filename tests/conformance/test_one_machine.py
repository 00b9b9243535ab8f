"""The conformance suite on `kgents up`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.suite import (
    test_a_stream_in_pieces_is_the_whole_stream,
    test_exactly_as_many_runs_are_admitted_as_there_is_room_for,
    test_no_operation_reaches_another_tenants_objects,
    test_what_was_answered_is_there_and_metered_once,
)
from tests.isolation.systems import running
from tests.support.reached import Reached

__all__ = [
    "test_a_stream_in_pieces_is_the_whole_stream",
    "test_exactly_as_many_runs_are_admitted_as_there_is_room_for",
    "test_no_operation_reaches_another_tenants_objects",
    "test_what_was_answered_is_there_and_metered_once",
]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reached]:
    with running("sqlite", tmp_path_factory.mktemp("conformance")) as made:
        yield made.up
