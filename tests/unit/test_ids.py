"""Identifiers: unique, in order, and of one form."""

from __future__ import annotations

import time

import pytest

from kgents.ids import is_id, new_id


def test_ids_are_unique_and_of_their_kind() -> None:
    made = [new_id("run") for _ in range(10_000)]
    assert len(set(made)) == len(made)
    assert all(is_id(one, "run") for one in made)


def test_later_ids_sort_after_earlier_ones() -> None:
    before = new_id("run")
    started = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 == started:
        pass
    assert new_id("run") > before


@pytest.mark.parametrize(
    "text", ["", "run_", "run_01ARZ3NDEKTSV4RRFFQ69G5FA", "run_01ARZ3NDEKTSV4RRFFQ69G5FAVX", "agt_" + "0" * 26]
)
def test_another_form_is_no_id(text: str) -> None:
    assert not is_id(text, "run")


@pytest.mark.parametrize("letter", ["I", "L", "O", "U", "a", "-", "\n", "é"])
def test_another_letter_is_no_id(letter: str) -> None:
    assert not is_id("run_" + "0" * 25 + letter, "run")
