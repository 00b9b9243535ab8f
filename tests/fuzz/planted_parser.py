"""A parser with a planted fault: behind a head of five bytes it takes a byte too many."""

from __future__ import annotations


def parse(data: bytes) -> int:
    """The number behind the head `kg:v1`. Raises ValueError for anything else."""
    for place, expected in enumerate(b"kg:v1"):
        if place >= len(data) or data[place] != expected:
            raise ValueError("the head is missing")
    return data[5]  # IndexError where nothing follows
