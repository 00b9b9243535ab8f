"""Which kgents a command talks to, and with which key: contexts, kept in the user's configuration folder (mode 600)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kgents.errors import KgentsError


class NoContext(KgentsError):
    """The command does not know which kgents to talk to."""

    code = "no-context"


@dataclass(frozen=True, slots=True)
class Context:
    """A kgents to talk to. `admin_key` is the platform administrator's, where the user has one."""

    name: str
    url: str
    api_key: str
    admin_key: str = ""


def config_file() -> Path:
    """Where contexts are kept: `$KGENTS_CONFIG_DIR`, or kgents/ in `$XDG_CONFIG_HOME` or ~/.config."""
    home = os.environ.get("KGENTS_CONFIG_DIR")
    base = Path(home) if home else Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kgents"
    return base / "contexts.json"


def _load() -> dict[str, Any]:
    path = config_file()
    if not path.exists():
        return {"current": "", "contexts": {}}
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        return {"current": str(found["current"]), "contexts": dict(found["contexts"])}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoContext(f"{path} can't be read. Remove it, and log in again with: kgents login URL") from error


def _store(values: dict[str, Any]) -> None:
    path = config_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        json.dump(values, handle, indent=2)
    partial.replace(path)


def save(context: Context) -> None:
    """Keep a context and make it the current one."""
    values = _load()
    values["contexts"][context.name] = {
        "url": context.url,
        "api_key": context.api_key,
        "admin_key": context.admin_key,
    }
    values["current"] = context.name
    _store(values)


def use(name: str) -> None:
    """Make a kept context the current one. Raises NoContext."""
    values = _load()
    if name not in values["contexts"]:
        raise NoContext(f"There is no context {name!r}. List them with: kgents context list")
    values["current"] = name
    _store(values)


def every() -> list[tuple[Context, bool]]:
    """All kept contexts, each with whether it is the current one."""
    values = _load()
    return [(Context(name, **fields), name == values["current"]) for name, fields in values["contexts"].items()]


def current(name: str = "") -> Context:
    """The context to use: `KGENTS_URL` and `KGENTS_API_KEY`, or the one named, or the current one. Raises NoContext."""
    url, key = os.environ.get("KGENTS_URL", ""), os.environ.get("KGENTS_API_KEY", "")
    if url and key and not name:
        return Context("environment", url.rstrip("/"), key, os.environ.get("KGENTS_ADMIN_KEY", ""))
    values = _load()
    wanted = name or values["current"]
    if wanted not in values["contexts"]:
        what = f"There is no context {name!r}" if name else "No kgents is known yet"
        raise NoContext(f"{what}. Start one with: kgents up, or log in to one with: kgents login URL")
    return Context(wanted, **values["contexts"][wanted])
