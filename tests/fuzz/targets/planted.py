"""The control: a parser that breaks behind three bytes, hardly ever guessed together; what is covered leads there."""

from __future__ import annotations

from tests.fuzz.planted_parser import parse

SEEDS = [b"hello"]


def check(data: bytes) -> None:
    """An input, which may be refused as ValueError and nothing else."""
    try:
        parse(data)
    except ValueError:
        return
