"""Nothing unfinished is in the product, and nothing that only exists on one machine is in it or in its docs."""

from __future__ import annotations

import subprocess

import pytest

from tests.architecture.source import ROOT
from tests.architecture.text import machine_paths, unfinished


def texts(*folders: str) -> dict[str, str]:
    """The text files under these folders that git keeps or would keep, by path."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    found = {}
    for name in listed:
        path = ROOT / name
        if path.is_file() and b"\0" not in (data := path.read_bytes()):
            found[name] = data.decode()
    return found


def test_nothing_in_the_product_is_unfinished() -> None:
    assert {name: marks for name, text in texts("src").items() if (marks := unfinished(text))} == {}


@pytest.mark.parametrize("planted", ["# TODO: later", "raise NotImplementedError", "x = 1  # FIXME"])
def test_catches_planted_unfinished_work(planted: str) -> None:
    assert unfinished(f"def f():\n    {planted}\n")


def test_no_machines_own_path_is_named() -> None:
    named = texts("src", "docs", "deploy", "dashboards", "scripts", ".ci", "*.md", "Makefile", "pyproject.toml")
    assert named
    assert {name: paths for name, text in named.items() if (paths := machine_paths(text))} == {}


@pytest.mark.parametrize(
    "planted",
    ["see /home/ann/kgents", 'open("/tmp/x")', "cd /work/main", "(/Users/ann/.cache)", "`/root/.config`", r"C:\kgents"],
)
def test_catches_a_planted_path(planted: str) -> None:
    assert machine_paths(planted)


@pytest.mark.parametrize("fine", ["GET /v1/runs/{id}/work", "https://host/home/", "/usr/lib/postgresql", "tmp/file"])
def test_accepts_what_is_no_machines_path(fine: str) -> None:
    assert machine_paths(fine) == []
