"""Where the processes of a `kgents up` are, as it keeps that in its data folder."""

from __future__ import annotations

import json
from pathlib import Path

from kgents.cli.client import Refused


def read(path: Path, *names: str, instead: str) -> dict[str, str]:
    """The fields of these names in a file that a `kgents up` keeps. Raises Refused for one that is not there, where
    `instead` says what to give, and for one that is damaged.
    """
    try:
        found = json.loads(path.read_text())
        return {name: str(found[name]) for name in names}
    except (FileNotFoundError, NotADirectoryError):
        raise Refused(f"There is no {path}. {instead}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refused(f"{path} is damaged. Start its kgents up anew, which writes it again.") from None
