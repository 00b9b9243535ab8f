"""Lints about the words of a file."""

from __future__ import annotations

import re

_UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK|raise NotImplementedError)\b")
# A folder of somebody's machine. What a system promises everywhere, such as /usr/lib or /etc, may be named.
_MACHINE_PATH = re.compile(r"""(?:^|[\s"'`(=:])((?:/(?:home|Users|root|work|mnt|tmp)|[A-Z]:\\)[/\\\w.-]*)""")


def unfinished(text: str) -> list[str]:
    """The marks of unfinished work."""
    return _UNFINISHED.findall(text)


def machine_paths(text: str) -> list[str]:
    """The absolute paths that exist only on some machine."""
    return _MACHINE_PATH.findall(text)
