"""The log files of `kgents up`: bounded, and read without a gap while they are rotated."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from kgents.cli import log_file
from kgents.cli.log_file import OLDER, Tail, older, open_append, rotated

SIZE = 2000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "MAX_BYTES", SIZE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "api.jsonl"


def test_the_files_are_bounded_and_the_newest_lines_stay(path: Path) -> None:
    stream = rotated(path, open_append(path))
    for number in range(2000):
        stream.write(f"line {number}\n")
    kept = [one.read_text() for one in (*older(path), path)]
    assert len(list(path.parent.iterdir())) == OLDER + 1
    assert max(map(len, kept)) < SIZE + 20
    lines = "".join(kept).splitlines()
    assert lines == [f"line {number}" for number in range(2000 - len(lines), 2000)]


def test_the_other_descriptors_move_along(path: Path) -> None:
    descriptor = open_append(path)
    other = os.dup(descriptor)
    stream = rotated(path, descriptor, other)
    stream.write("x" * SIZE + "\n")
    os.write(other, b"a traceback\n")
    assert path.read_text() == "a traceback\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_earlier_file_counts_towards_the_size(path: Path) -> None:
    path.write_text("y" * (SIZE - 5) + "\n")
    stream = rotated(path, open_append(path))
    stream.write("first\n")
    stream.write("second\n")
    assert path.read_text() == "second\n"


def test_a_reader_misses_nothing_while_files_are_rotated(path: Path) -> None:
    stream = rotated(path, open_append(path))
    tail = Tail(path)
    found: list[str] = []

    def write() -> None:
        for number in range(600):  # which fit into the files that are kept
            stream.write(f"line {number}\n")

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        found += tail.lines()
    found += tail.lines()
    tail.close()
    assert found == [f"line {number}" for number in range(600)]


def test_a_reader_that_comes_after_several_rotations_misses_nothing(path: Path) -> None:
    stream = rotated(path, open_append(path))
    tail = Tail(path)
    stream.write("first\n")
    found = list(tail.lines())
    for number in range(OLDER):
        stream.write(f"{number}" * SIZE + "\n")
    assert [line[:5] for line in [*found, *tail.lines()]] == ["first", "00000", "11111", "22222"]
    tail.close()


def test_a_line_that_is_not_whole_yet_waits(path: Path) -> None:
    path.write_text("half")
    tail = Tail(path)
    assert list(tail.lines()) == []
    with path.open("a") as handle:
        handle.write(" a line\n")
    assert list(tail.lines()) == ["half a line"]
    tail.close()
