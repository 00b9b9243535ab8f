"""The depth of JSON, measured without parsing it: exact for what is JSON, and no more than a refusal for the rest."""

from __future__ import annotations

from typing import Any

import orjson

from kgents.api.edge import check_structure
from kgents.errors import InvalidRequest

LIMIT = 8

SEEDS = [
    b"[" * 9 + b"]" * 9,
    b"[" * 8 + b"]" * 8,
    b'{"a":[{"b":"[[[[[[[[["},[[],[],[],[],[],[],[]]]}',
    b'"' + b"\\" * 9 + b'"[[[[[[[[[[]]]]]]]]]]',
    b'["\\"[[[[[[[[[[", {"{{{{{{{{{": []}]',
    b'["[[[[[[[[["]' + b'"\\' * 9,
]


def check(data: bytes) -> None:
    """A body."""
    try:
        check_structure(data, LIMIT)
        refused = False
    except InvalidRequest:
        refused = True
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return
    assert refused == (_depth(value) > LIMIT)


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth
