"""Criteria that someone answers for although they don't hold, for a time: `security/waivers.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from kgents.clock import to_datetime
from kgents.errors import Unprocessable

LONGEST = timedelta(days=400)
"""How long somebody answers for something without looking again; as for exceptions of `kgents scan`."""


@dataclass(frozen=True, slots=True)
class Waiver:
    """Why a criterion may stand open, who answers for it, and the last day (UTC) on which it may."""

    criterion: str
    reason: str
    owner: str
    until: date

    def holds(self, now: int) -> bool:
        """Whether it still counts."""
        return to_datetime(now).date() <= self.until


def load(path: Path, now: int) -> dict[str, Waiver]:
    """The waivers of a file, by criterion; none where there is no file. Raises Unprocessable."""
    if not path.exists():
        return {}
    try:
        document = tomllib.loads(path.read_text())
        found = [Waiver(**each) for each in document.get("waiver", [])]
    except OSError as error:
        raise _malformed(path, error.strerror or type(error).__name__) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError, AttributeError) as error:
        raise _malformed(path, str(error)) from None
    for each in found:
        if not isinstance(each.until, date) or isinstance(each.until, datetime):
            raise _malformed(path, f"until of {each.criterion} must be a day, such as 2026-12-31")
        if each.until > to_datetime(now).date() + LONGEST:
            raise _malformed(path, f"{each.criterion} is waived until {each.until}, for more than {LONGEST.days} days")
        if not all(isinstance(text, str) and text.strip() for text in (each.criterion, each.reason, each.owner)):
            raise _malformed(path, f"{each.criterion or 'a waiver'} lacks a reason or an owner")
    if len({each.criterion for each in found}) != len(found):
        raise _malformed(path, "a criterion is waived twice")
    return {each.criterion: each for each in found}


def _malformed(path: Path, why: str) -> Unprocessable:
    return Unprocessable(
        f"{path} can't be used: {why}. Each [[waiver]] has criterion, reason, owner and until.", code="waivers"
    )
