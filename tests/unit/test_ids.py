"""Identifiers: unique, in order, and of one form."""

from __future__ import annotations

import os
import threading
import time

import pytest

from kgents.ids import first_id, is_id, new_id, random_bytes


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


def test_random_bytes_are_given_out_once() -> None:
    threads_bytes: list[list[bytes]] = [[] for _ in range(4)]
    threads = [
        threading.Thread(target=lambda kept=kept: kept.extend(random_bytes(10) for _ in range(5000)))
        for kept in threads_bytes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [one for kept in threads_bytes for one in kept]
    assert len(set(taken)) == len(taken) == 20_000


def test_more_random_bytes_than_are_fetched_at_once() -> None:
    assert len(random_bytes(10_000)) == 10_000


def test_a_forked_process_makes_other_ids() -> None:
    new_id("run")  # there are bytes left to share
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, random_bytes(16))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 16) != random_bytes(16)
    os.close(reading)
    os.close(writing)


def test_the_first_id_of_a_moment_is_before_those_made_from_then_on() -> None:
    moment = time.time_ns() // 1000
    assert first_id("run", moment) < new_id("run") < first_id("run", moment + 60_000_000)
    assert is_id(first_id("run", moment), "run")
