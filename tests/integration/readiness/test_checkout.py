"""What git knows of the evidence: commits that HEAD comes from, and the ledger's lines."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kgents.clock import SystemClock
from kgents.errors import Unprocessable
from kgents.readiness.ledger import Ledger
from kgents.readiness.model import Result, Verdict
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


def ledger(checkout: Path) -> Ledger:
    """One with a pass that became a fail, committed."""
    kept = Ledger(checkout / "evidence" / "ready")
    for verdict in (Verdict.PASS, Verdict.FAIL):
        kept.result(Result("A1", verdict, "é", 0, ""), 0, "here", "run")
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "--message=test")
    return kept


def test_a_ledger_goes_on_from_what_was_committed(checkout: Path) -> None:
    kept = ledger(checkout)
    assert kept.verify() == 2
    kept.result(Result("A1", Verdict.PASS, "", 0, ""), 0, "here", "run")
    assert kept.verify() == 3


def test_a_line_that_was_committed_and_cut_off_is_seen(checkout: Path) -> None:
    kept = ledger(checkout)
    first = kept.path.read_bytes().splitlines(keepends=True)[0]
    kept.path.write_bytes(first)
    with pytest.raises(Unprocessable, match="line 1: it is the last, and what was committed goes on"):
        kept.verify()
    kept.result(Result("A1", Verdict.PASS, "", 0, ""), 0, "here", "run")
    with pytest.raises(Unprocessable, match="line 2: it is the last, and what was committed goes on"):
        kept.verify()


@pytest.mark.parametrize("gone", ["evidence/ready/ledger.jsonl", "evidence/ready", "evidence"])
def test_a_ledger_that_was_committed_and_is_gone_is_seen(checkout: Path, gone: str) -> None:
    kept = ledger(checkout)
    (checkout / gone).rename(checkout / "elsewhere")
    with pytest.raises(Unprocessable, match="what was committed"):
        kept.verify()
