"""`kgents backup` and `kgents restore`: copies of the event bus's streams. The database has its own tools."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

from kgents.cli.explained import explained
from kgents.cli.output import note
from kgents.errors import NotFound

_NAME = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ")


def back_up(into: Path, keep: int) -> None:
    """Make a copy in a folder of its own, named by the time, and remove the oldest beyond `keep` (0: none)."""
    from kgents import config
    from kgents.bus.backup import back_up
    from kgents.clock import SystemClock, to_rfc3339

    into.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = to_rfc3339(SystemClock().now())[:19].replace(":", "-") + "Z"
    with explained():
        asyncio.run(back_up(config.load(), into / name, lambda copied: note(_line("copied", copied))))
    note(f"{into / name} is whole")
    for old in _copies(into)[: -keep if keep else None] if keep else []:
        shutil.rmtree(into / old)
        note(f"removed {into / old}")


def restore(copy: Path) -> None:
    """Bring the streams of a copy back: of this one, or of the newest in a folder of copies."""
    from kgents import config
    from kgents.bus.backup import restore

    if not (copy / "sums.json").exists():
        names = _copies(copy) if copy.is_dir() else []
        if not names:
            raise NotFound(f"There is no copy in {copy}. Make one with `kgents backup`.", code="no-backup")
        copy = copy / names[-1]
        note(f"taking the newest: {copy}")
    with explained():
        asyncio.run(restore(config.load(), copy, lambda restored: note(_line("restored", restored))))


def _line(what: str, copied: object) -> str:
    from kgents.bus.backup import Copied

    assert isinstance(copied, Copied)
    return f"{what} {copied.stream}: {copied.messages} messages, {copied.bytes} bytes"


def _copies(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if _NAME.fullmatch(path.name))
