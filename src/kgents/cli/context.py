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
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        kept = {
            name: {field: str(fields.get(field, "")) for field in ("url", "api_key", "admin_key")}
            for name, fields in found["contexts"].items()
        }
        return {"current": str(found["current"]), "contexts": kept}
    except FileNotFoundError:
        return {"current": "", "contexts": {}}
    except OSError as error:
        raise NoContext(
            f"{path} can't be read: {error.strerror}. Set KGENTS_CONFIG_DIR to a folder of yours."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NoContext(f"{path} can't be read. Remove it, and log in again with: kgents login URL") from error


def _store(values: dict[str, Any]) -> None:
    path = config_file()
    partial = path.with_suffix(f".partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            json.dump(values, handle, indent=2)
        partial.replace(path)
    except OSError as error:
        raise NoContext(
            f"{path} can't be written: {error.strerror}. Set KGENTS_CONFIG_DIR to a folder of yours."
        ) from error


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
    """The context to use: the one named, or else the one of `KGENTS_URL` with `KGENTS_API_KEY` and `KGENTS_ADMIN_KEY`
    where that is set, or else the current one. Raises NoContext.
    """
    url = os.environ.get("KGENTS_URL", "")
    if url and not name:
        keys = (os.environ.get(variable, "") for variable in ("KGENTS_API_KEY", "KGENTS_ADMIN_KEY"))
        return Context("environment", url.rstrip("/"), *keys)
    values = _load()
    wanted = name or values["current"]
    if wanted not in values["contexts"]:
        what = f"There is no context {name!r}" if name else "No kgents is known yet"
        raise NoContext(f"{what}. Start one with: kgents up, or log in to one with: kgents login URL")
    return Context(wanted, **values["contexts"][wanted])
