"""The control: a parser that breaks on one input in 2^40, which only what it covers leads to."""

from __future__ import annotations

from tests.fuzz.planted_parser import parse

SEEDS = [b"hello"]


def check(data: bytes) -> None:
    """An input, which may be refused as ValueError and nothing else."""
    try:
        parse(data)
    except ValueError:
        return
