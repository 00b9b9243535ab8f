"""A parser with a planted fault: behind a head of three bytes it takes one that may not be there."""

from __future__ import annotations


def parse(data: bytes) -> int:
    """The number behind the head `kg:`. Raises ValueError for anything else."""
    if data[:1] != b"k":
        raise ValueError("the first byte is wrong")
    if data[1:2] != b"g":
        raise ValueError("the second byte is wrong")
    if data[2:3] != b":":
        raise ValueError("the third byte is wrong")
    return data[3]  # IndexError where nothing follows
