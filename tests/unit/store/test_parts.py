"""How much of a list is read at a time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import sqlalchemy as sa

from kgents.store import parts

TABLE = sa.Table("things", sa.MetaData(), sa.Column("name", sa.Text), sa.Column("text", sa.Text))


def part_of(lengths: Sequence[int | None], limit: int) -> tuple[list[str], bool]:
    """Of a list of things a, b, ... with texts of these lengths."""
    engine = sa.create_engine("sqlite://")
    rows = [
        {"name": chr(ord("a") + number), "text": None if length is None else "x" * length}
        for number, length in enumerate(lengths)
    ]
    with engine.begin() as connection:
        TABLE.metadata.create_all(connection)
        if rows:
            connection.execute(sa.insert(TABLE), rows)
        keys = sa.select(TABLE.c.name, sa.func.length(TABLE.c.text)).order_by(TABLE.c.name)
        return parts.part_of(connection, keys, limit)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST", 10)


@pytest.mark.parametrize(
    ("lengths", "limit", "part", "more"),
    [
        ([], 2, "", False),
        ([1, 1], 2, "ab", False),
        ([1, 1, 1], 2, "ab", True),
        ([5, 5], 2, "ab", False),
        ([5, 6], 2, "a", True),
        ([11, 1], 2, "a", True),
        ([11], 2, "a", False),
        ([None, 10, None, 1], 4, "abc", True),
    ],
)
def test_it_ends_with_its_limit_or_when_it_is_large(
    lengths: Sequence[int | None], limit: int, part: str, more: bool
) -> None:
    assert part_of(lengths, limit) == (list(part), more)
