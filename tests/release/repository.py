"""Repositories to release from."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERSION = "1.2.0"
CHANGELOG = f"# Changelog\n\n## [Unreleased]\n\n## [{VERSION}] - 2026-11-27\n\n### Added\n- A thing.\n"
_ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "Ann",
    "GIT_AUTHOR_EMAIL": "ann@example.com",
    "GIT_COMMITTER_NAME": "Ann",
    "GIT_COMMITTER_EMAIL": "ann@example.com",
    "GIT_AUTHOR_DATE": "2026-01-31T12:00:00Z",
    "GIT_COMMITTER_DATE": "2026-01-31T12:00:00Z",
}


def git(tree: Path, *arguments: str) -> str:
    """What git answers there, in nobody's configuration."""
    command = ["git", "-c", "init.defaultBranch=main", *arguments]
    return subprocess.run(
        command, cwd=tree, env=_ENVIRONMENT, check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


def commit(tree: Path) -> str:
    """Commit all that is in the tree; answers the commit."""
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--allow-empty", "--message", "Release")
    return git(tree, "rev-parse", "HEAD")


def small(tree: Path) -> Path:
    """One with just what says whether it may be released, and it may be."""
    tree.mkdir()
    (tree / "pyproject.toml").write_text(f'[project]\nname = "kgents"\nversion = "{VERSION}"\n')
    (tree / "CHANGELOG.md").write_text(CHANGELOG)
    (tree / ".gitignore").write_text("dist/\n")
    git(tree, "init", "--quiet")
    commit(tree)
    return tree


def of_this_tree(tree: Path) -> Path:
    """One with the files of this tree, also those in no commit yet, and a changelog that says they are released."""
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in listed:
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    version = tomllib.loads((tree / "pyproject.toml").read_text())["project"]["version"]
    (tree / "CHANGELOG.md").write_text(CHANGELOG.replace(VERSION, version))
    git(tree, "init", "--quiet")
    commit(tree)
    return tree
