"""Scanners' programs: each in an environment of its own, installed by hash, kept by what is pinned."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from kgents.errors import Unavailable

MINUTES = 15
_SOURCE = re.compile(r"^(\* |ERROR:[\w.]+:|\S+\s+FATAL\s+(Fatal error\s+)?)")  # what loggers put before a message
PYTHON = "3.11"  # what the requirements in tools/ are resolved for, and newer


class Broken(Unavailable):
    """A scanner, or what it needs, can't be run; the detail says why. Its verdict is then `unknown`."""


@dataclass(frozen=True, slots=True)
class Done:
    """A program that has ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def last_words(self) -> str:
        """The last line that it complained with."""
        lines = [line.strip() for line in (self.stderr.strip() or self.stdout.strip()).splitlines() if line.strip()]
        return _SOURCE.sub("", lines[-1])[:400] if lines else f"it ended with status {self.status} and said nothing"


@dataclass(frozen=True, slots=True)
class Toolbox:
    """Programs of scanners, under a cache folder. Its methods raise Broken."""

    folder: Path

    @staticmethod
    def usual() -> Toolbox:
        """The one in the user's cache folder (`KGENTS_CACHE`, else `XDG_CACHE_HOME`, else `~/.cache`)."""
        given = os.environ.get("KGENTS_CACHE")
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return Toolbox((Path(given) if given else home / "kgents") / "scan")

    def environment(self, tool: str) -> Path:
        """The environment that has this tool: installed now, by the hashes in tools/, unless it is there."""
        pins = resources.files("kgents.scan").joinpath("tools", f"{tool}.txt").read_text()
        folder = self.folder / f"{tool}-{hashlib.sha256(pins.encode()).hexdigest()[:16]}"
        complete = folder / "complete"
        if complete.exists():
            return folder
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{tool}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if complete.exists():
                return folder
            shutil.rmtree(folder, ignore_errors=True)
            python = folder / "bin" / "python"
            self.uv("venv", "--quiet", "--no-project", "--python", f">={PYTHON}", str(folder))
            wanted = folder / "requirements.txt"
            wanted.write_text(pins)
            self.uv(
                *("pip", "install", "--quiet", "--python", str(python), "--no-deps", "--only-binary", ":all:"),
                *("--require-hashes", "--requirements", str(wanted)),
            )
            complete.touch()
        return folder

    def program(self, tool: str, name: str) -> str:
        """A program of this tool."""
        return str(self.environment(tool) / "bin" / name)

    def uv(self, *arguments: str, cwd: Path | None = None, **variables: str) -> Done:
        """Run uv. Unlike `run`, anything but success is Broken."""
        done = run([_uv(), *arguments], cwd=cwd, **variables)
        if done.status != 0:
            raise Broken(f"`uv {arguments[0]}` failed: {done.last_words}", code="no-tool")
        return done


# What scanners read beside their arguments, and could be told by to look away. Where their data lies may be said.
_SETTINGS = ("TRIVY_", "HADOLINT_", "CKV_", "CHECKOV_", "BC_")
_PLACES = ("TRIVY_DB_REPOSITORY", "TRIVY_JAVA_DB_REPOSITORY", "TRIVY_CHECKS_BUNDLE_REPOSITORY", "TRIVY_CACHE_DIR")


def run(command: Sequence[str], *, cwd: Path | None = None, **variables: str) -> Done:
    """Run a program to its end, whatever its status, without the settings of scanners in our own environment. Raises
    Broken where it can't start or does not end.
    """
    ours = {name: value for name, value in os.environ.items() if name in _PLACES or not name.startswith(_SETTINGS)}
    environment: Mapping[str, str] = {**ours, **variables}
    try:
        done = subprocess.run(  # noqa: S603 - no shell; the programs are ours, the arguments paths
            command, cwd=cwd, env=environment, capture_output=True, text=True, errors="replace", timeout=MINUTES * 60
        )
    except subprocess.TimeoutExpired:
        raise Broken(f"{Path(command[0]).name} did not end within {MINUTES} minutes", code="scanner") from None
    except OSError as error:
        raise Broken(f"{command[0]} can't be run: {error.strerror}", code="no-tool") from None
    return Done(done.returncode, done.stdout, done.stderr)


def git(tree: Path, *arguments: str) -> str | None:
    """What git says of a tree; None where it is no repository, or there is no git."""
    try:
        done = run(["git", *arguments], cwd=tree)
    except Broken:
        return None
    return done.stdout if done.status == 0 else None


def _uv() -> str:
    """uv: the one that runs us, the one on PATH, or the one that scripts/uv keeps."""
    given = os.environ.get("UV") or shutil.which("uv")
    if given:
        return given
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = sorted((cache / "kgents").glob("uv-*/bin/uv"))
    if not kept:
        raise Broken("there is no uv, which installs scanners. Install it: pip install uv", code="no-tool")
    return str(kept[-1])
