"""`kgents ready` without an installation: what it says of its ledger and of what it can't ask or write."""

from __future__ import annotations

from pathlib import Path

import pytest

from kgents.readiness.ledger import Ledger
from kgents.readiness.model import Result, Verdict
from tests.support.cli import Cli
from tests.support.ports import free_port

NOW = 1_700_000_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A ledger with one result."""
    (folder := tmp_path / "ledger").mkdir()
    Ledger(folder).result(Result("A1", Verdict.PASS, "good", NOW, "c0ffee"), NOW, "here", "run")
    return folder


def test_a_ledger_as_it_was_written(stranger: Cli, folder: Path) -> None:
    done = stranger("ready", "verify", "--ledger", folder)
    assert (done.status, done.stderr) == (0, "1 lines, each as it was written\n")


@pytest.mark.parametrize(
    "make", [lambda _: None, lambda path: path.mkdir(), lambda path: (path.mkdir(), Ledger(path).path.touch())]
)
def test_a_ledger_without_a_line_is_not_verified(stranger: Cli, tmp_path: Path, make: object) -> None:
    make(tmp_path / "none")  # type: ignore[operator]
    assert "has no line yet" in stranger("ready", "verify", "--ledger", tmp_path / "none").complaint


@pytest.mark.parametrize("command", [(), ("plan",), ("render",), ("verify",)])
def test_a_ledger_without_the_line_that_the_checklist_names_is_not_read(
    stranger: Cli, tmp_path: Path, command: tuple[str, ...]
) -> None:
    kept, checklist = Ledger(tmp_path / "evidence" / "ready"), Path("docs/saas/production-checklist.md")
    for verdict in (Verdict.PASS, Verdict.FAIL):
        kept.result(Result("A1", verdict, "", NOW, ""), NOW, "here", "run")
    rendered = stranger("ready", "render", "--project", tmp_path, "--markdown", tmp_path / checklist)
    assert rendered.status == 0
    kept.path.write_text(kept.path.read_text().splitlines(keepends=True)[0])
    complaint = stranger("ready", *command, "--project", tmp_path).complaint
    assert "line 1: it is the last, and the checklist names one that is not there" in complaint


@pytest.mark.parametrize("command", ["plan", "render", "verify"])
@pytest.mark.parametrize("line", ['{"hash": "a", "before": "b"}', '{"kind": "result", "hash": "a", "before": "b"}'])
def test_a_ledger_that_was_changed_is_not_read(stranger: Cli, folder: Path, command: str, line: str) -> None:
    with Ledger(folder).path.open("a") as file:
        file.write(line + "\n")
    assert "line 2: it " in stranger("ready", command, "--ledger", folder).complaint


def test_nothing_is_spent_in_a_ledger_that_was_changed(stranger: Cli, folder: Path) -> None:
    with Ledger(folder).path.open("a") as file:
        file.write("garbage\n")
    complaint = stranger("ready", "spend", "A", "--attention", "5", "--ledger", folder).complaint
    assert "line 2: it is not one of the ledger's" in complaint


def test_waivers_that_can_not_be_read(stranger: Cli, folder: Path) -> None:
    complaint = stranger("ready", "plan", "--ledger", folder, "--waivers", folder).complaint
    assert f"{folder} can't be used: Is a directory" in complaint


def test_a_checklist_that_can_not_be_written(stranger: Cli, folder: Path) -> None:
    path = Ledger(folder).path / "checklist.md"
    complaint = stranger("ready", "render", "--ledger", folder, "--markdown", path).complaint
    assert f"{path} can't be written: " in complaint


def test_a_checklist_that_is_a_folder(stranger: Cli, folder: Path) -> None:
    done = stranger("ready", "render", "--ledger", folder, "--markdown", folder)
    assert done.status == 2
    assert "is a directory" in " ".join(done.stderr.split())


def test_a_checklist_in_a_new_folder(stranger: Cli, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "checklist.md"
    assert stranger("ready", "render", "--ledger", folder, "--markdown", path).status == 0
    assert path.read_text().startswith("# Production checklist")


def test_without_kubectl_what_needs_it_is_unknown(stranger: Cli, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = stranger("ready", "--url", url, "--only", "A2", "--ledger", tmp_path / "new", "-o", "json", PATH="/nowhere")
    found = {each["criterion"]: (each["verdict"], each["detail"]) for each in done.json()}
    assert done.status == 1
    assert (found["A1"][0], found["A2"][0]) == ("unknown", "unknown")
    assert found["A1"][1].startswith("There is no cluster to ask: There is no kubectl on the PATH. Install it: ")
