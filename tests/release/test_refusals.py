"""What is not to be released is refused, with the reason and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from release import source
from tests.release import repository


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return repository.small(tmp_path / "kgents")


def refusals(tree: Path) -> list[str]:
    return source.refusals(tree, source.read(tree))


def test_a_commit_with_its_changelog_may_be_released(tree: Path) -> None:
    assert refusals(tree) == []


def test_one_with_its_tag_may_be_released(tree: Path) -> None:
    repository.git(tree, "tag", "v1.2.0")
    assert (refusals(tree), source.read(tree).ref) == ([], "refs/tags/v1.2.0")


@pytest.mark.parametrize("name", ["CHANGELOG.md", "new.py"])
def test_what_is_in_no_commit_is_refused(tree: Path, name: str) -> None:
    with (tree / name).open("a") as file:
        file.write("More\n")
    (reason,) = refusals(tree)
    assert f"not the commit: {name}" in reason


def test_what_git_ignores_is_in_nobodys_way(tree: Path) -> None:
    (tree / "dist").mkdir()
    (tree / "dist" / "kgents-1.1.0.tar.gz").touch()
    assert refusals(tree) == []


def test_a_changelog_without_the_version_is_refused(tree: Path) -> None:
    (tree / "CHANGELOG.md").write_text(repository.CHANGELOG.replace("1.2.0", "1.1.0"))
    repository.commit(tree)
    (reason,) = refusals(tree)
    assert "no section of 1.2.0" in reason


def test_the_version_of_another_commit_is_refused(tree: Path) -> None:
    first = repository.git(tree, "rev-parse", "HEAD")
    repository.git(tree, "tag", "--annotate", "--message", "1.2.0", "v1.2.0")
    second = repository.commit(tree)
    (reason,) = refusals(tree)
    assert f"v1.2.0 is on another commit, {first[:12]}, and this is {second[:12]}" in reason


def test_a_history_that_is_cut_off_is_refused(tree: Path, tmp_path: Path) -> None:
    repository.commit(tree)
    repository.git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{tree}", "shallow")
    (reason,) = refusals(tmp_path / "shallow")
    assert "git fetch --unshallow" in reason


def test_all_reasons_are_told_at_once(tree: Path) -> None:
    repository.git(tree, "tag", "v1.2.0")
    (tree / "CHANGELOG.md").write_text("# Changelog\n")
    repository.commit(tree)
    (tree / "new.py").touch()
    assert len(refusals(tree)) == 3
