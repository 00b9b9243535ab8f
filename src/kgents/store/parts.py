"""Parts of lists whose rows may be large: as many as were asked for, or as fit into memory together."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

MOST = 4_000_000  # characters of a part's rows; a single row may have more


def part_of(connection: Connection, keys: sa.Select[Any], limit: int) -> tuple[list[Any], bool]:
    """The first keys of a list, and whether there are more. `keys` selects each with its row's size, in order."""
    rows = connection.execute(keys.limit(limit + 1)).all()
    part: list[Any] = []
    room = MOST
    for key, size in rows[:limit]:
        room -= size or 0
        if part and room < 0:
            break
        part.append(key)
    return part, len(part) < len(rows)
