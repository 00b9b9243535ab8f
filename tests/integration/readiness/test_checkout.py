"""What counts as the checkout's: commits that HEAD comes from, with what has changed since."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kgents.clock import SystemClock
from kgents.readiness.target import Target


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path, name: str, text: str) -> str:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    git(folder, "add", name)
    git(folder, "commit", "--quiet", "--message=test")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    return tmp_path


def since(folder: Path, commit: str) -> list[str] | None:
    return Target(SystemClock(), folder, bytes).changed_since(commit)


def test_a_commit_of_the_history_says_what_has_changed_since(checkout: Path) -> None:
    first = commit(checkout, "a", "1")
    commit(checkout, "evidence/scan.json", "{}")
    last = commit(checkout, "ä b", "2")
    assert since(checkout, first) == ["evidence/scan.json", "ä b"]
    assert since(checkout, first[:12]) == since(checkout, first)
    assert since(checkout, last) == []


def test_other_commits_are_none_of_it(checkout: Path) -> None:
    first = commit(checkout, "a", "1")
    other = commit(checkout, "a", "2")
    git(checkout, "reset", "--quiet", "--hard", first)
    assert [since(checkout, each) for each in (other, 40 * "0", f"{first}+", "unknown", "HEAD", "--all")] == 6 * [None]


def test_outside_of_a_checkout_there_is_no_history(tmp_path: Path) -> None:
    assert since(tmp_path, 40 * "0") is None
