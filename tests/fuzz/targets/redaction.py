"""Logs: a key and a password within any text do not get through."""

from __future__ import annotations

import orjson

from kgents.telemetry import logs

SECRET = "Cvo26fEYIc9luKEljrowkYCQmiDKTv0LBxS9CxqA6282OSSFK"
_TOKEN = f"kg_1m8a7zsezh89cmmn_{SECRET}"

SEEDS = [b"hello", b"Authorization: Bearer ", b"https://u:p@h/", b"sk-", b"kg_", b"kg_1m8a7zsezh89cmmn_"]


def check(data: bytes) -> None:
    """A key in the middle of a text, and at any depth of a line's values."""
    place = data[0] % (len(data) + 1) if data else 0
    before, after = (part.decode("utf-8", "replace") for part in (data[:place], data[place:]))
    line = {"event": before + _TOKEN + after, "deep": [{"more": (before + _TOKEN + after,)}], "api_key": SECRET + after}
    safe = orjson.dumps(logs.redact(line)).decode()
    assert SECRET not in safe
