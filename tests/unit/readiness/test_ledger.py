"""The ledger: whatever is changed in it later is seen."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kgents.errors import Unprocessable
from kgents.readiness.ledger import START, Ledger
from kgents.readiness.model import Result, Verdict

NOW = 1_700_000_000_000_000


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path)
    for number in range(4):
        evidence = made.keep({"number": number})
        result = Result(f"A{number}", Verdict.PASS, "good", NOW + number, "c0ffee", evidence)
        made.result(result, NOW + number, "here", "run")
    return made


def test_an_untouched_ledger_is_as_it_was(ledger: Ledger) -> None:
    assert ledger.verify() == 4


def test_an_empty_one_too(tmp_path: Path) -> None:
    assert Ledger(tmp_path).verify() == 0
    assert Ledger(tmp_path).latest("here") == {}


def test_each_line_has_the_hash_of_the_line_before(ledger: Ledger) -> None:
    lines = ledger.lines()
    assert [line["before"] for line in lines] == [START, *(line["hash"] for line in lines[:-1])]


def changed(lines: list[str]) -> list[str]:
    document = json.loads(lines[1])
    document["verdict"] = "pass" if document["verdict"] != "pass" else "fail"
    return [lines[0], json.dumps(document), *lines[2:]]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (changed, 2),
        (lambda lines: [lines[0], *lines[2:]], 2),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], 2),
        (lambda lines: [*lines, lines[3]], 5),
        (lambda lines: [*lines[:2], "not JSON", lines[3]], 3),
    ],
)
def test_what_was_changed_is_found(ledger: Ledger, change: Callable[[list[str]], list[str]], line: int) -> None:
    ledger.path.write_text("\n".join(change(ledger.path.read_text().splitlines())) + "\n")
    with pytest.raises(Unprocessable, match=f"line {line}"):
        ledger.verify()


@pytest.mark.parametrize("content", ['{"number":7}', "", None])
def test_evidence_that_was_changed_or_removed_is_found(ledger: Ledger, content: str | None) -> None:
    path = ledger.folder / "seen" / f"{ledger.lines()[2]['evidence']}.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(Unprocessable, match="line 3"):
        ledger.verify()


@pytest.mark.parametrize("text", ["a\u2028b", "a\u2029b", "a\u0085b", "a\x1cb", "a\ud800b", "\ud83d\ude00", "ü"])
def test_whatever_a_server_said_can_be_kept_and_verified(ledger: Ledger, text: str) -> None:
    evidence = ledger.keep({"said": text})
    ledger.result(Result("A1", Verdict.FAIL, text, NOW, "c0ffee", evidence), NOW, "here", "run")
    assert ledger.verify() == 5
    ledger.add("spent", NOW, track="A", attention=1, exploration=0)
    assert ledger.verify() == 6


def test_what_json_keeps_otherwise_is_named_by_what_is_kept(ledger: Ledger) -> None:
    evidence = ledger.keep({"counts": {9: (1, 2), 10: (3,)}})
    ledger.result(Result("A1", Verdict.PASS, "good", NOW, "c0ffee", evidence), NOW, "here", "run")
    assert ledger.verify() == 5


def test_several_threads_may_keep_the_same(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    both, rename = threading.Barrier(2, timeout=30), Path.rename

    def together(path: Path, to: Path) -> Path:
        both.wait()
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", together)
    with ThreadPoolExecutor(2) as pool:
        keeping = [pool.submit(ledger.keep, {"same": 1}) for _ in range(2)]
    assert len({each.result() for each in keeping}) == 1


@pytest.mark.parametrize("line", [b"garbage\n", b"[]\n", b"\xff\n", b'{"hash": "a", "before": "b"}\n', b"\n"])
def test_a_line_that_is_not_the_ledgers_is_named(ledger: Ledger, line: bytes) -> None:
    with ledger.path.open("ab") as file:
        file.write(line)
    for ask in (ledger.lines, ledger.verify, lambda: ledger.add("spent", NOW)):
        with pytest.raises(Unprocessable, match="line 5: it is not one of the ledger's"):
            ask()


def test_a_ledger_that_is_a_folder_is_said_to_be_one(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.path.mkdir()
    with pytest.raises(Unprocessable, match="can't be read: Is a directory"):
        ledger.verify()
    with pytest.raises(Unprocessable, match="can't be written: Is a directory"):
        ledger.add("spent", NOW)


def test_nothing_is_added_to_a_ledger_that_breaks_off(ledger: Ledger) -> None:
    with ledger.path.open("a") as file:
        file.write('{"kind": "result"')
    with pytest.raises(Unprocessable, match="line 5"):
        ledger.add("spent", NOW, track="A", attention=1, exploration=0)


def test_the_last_result_of_each_criterion_counts(ledger: Ledger) -> None:
    ledger.result(Result("A1", Verdict.FAIL, "bad", NOW + 9, "c0ffee"), NOW + 9, "here", "run")
    ledger.result(Result("A2", Verdict.FAIL, "bad", NOW + 9, "c0ffee"), NOW + 9, "elsewhere", "run")
    latest = ledger.latest("here")
    assert {name: each.verdict for name, each in latest.items()} == {
        "A0": Verdict.PASS,
        "A1": Verdict.FAIL,
        "A2": Verdict.PASS,
        "A3": Verdict.PASS,
    }
    assert latest["A1"].time == NOW + 9
