"""The checklist says of each criterion what it came to, and unknown where nobody looked."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kgents.clock import from_rfc3339
from kgents.errors import Unprocessable
from kgents.readiness import render, waivers
from kgents.readiness.criteria import GRAPH
from kgents.readiness.ledger import Ledger
from kgents.readiness.model import Result, Verdict
from kgents.readiness.plan import budgets, done

NOW = 1_700_000_000_000_000
NASTY = "a | b <script>alert(1)</script>\nnext \x1b[31m"


def page(**verdicts: Verdict) -> render.Page:
    results = {name: Result(name, each, NASTY, NOW, "c0ffee" * 7, "e" * 64) for name, each in verdicts.items()}
    return render.Page(GRAPH, results, "here", "f" * 64, NOW)


ALL = dict.fromkeys((each.id for each in GRAPH.criteria), Verdict.PASS)


def test_an_installation_is_ready_where_nothing_stands_in_the_way() -> None:
    assert page(**ALL).is_ready
    assert page(**{**ALL, "A1": Verdict.WAIVED}).is_ready


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.UNKNOWN])
def test_one_that_is_open_makes_it_not_ready(verdict: Verdict) -> None:
    assert not page(**{**ALL, "D3": verdict}).is_ready


def test_what_was_never_checked_is_unknown() -> None:
    few = page(A1=Verdict.PASS)
    assert not few.is_ready
    assert few.verdict == f"Not ready: 1 pass, {len(ALL) - 1} unknown of {len(ALL)} criteria."
    assert render.NEVER in render.markdown(few)


def test_the_table_has_a_row_for_each_whatever_was_found() -> None:
    text = render.markdown(page(**ALL))
    rows = [line for line in text.splitlines() if line.startswith(("| A", "| B", "| C", "| D", "| L"))]
    assert len(rows) == len(ALL)
    assert {row.replace("\\|", "").count("|") for row in rows} == {7}
    assert "<script>" not in text


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    seen: list[tuple[str, dict[str, str | None]]] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            seen.append((tag, dict(attributes)))

    Parser().feed(render.html(page(**ALL)))
    assert {tag for tag, _ in seen}.isdisjoint({"script", "link", "img", "iframe"})
    assert [attributes["id"] for tag, attributes in seen if tag == "tr"] == list(ALL)


def test_ci_reads_a_fail_as_failure_and_unknown_as_error() -> None:
    verdicts = {**ALL, "A1": Verdict.FAIL, "A2": Verdict.UNKNOWN, "A3": Verdict.WAIVED}
    suite = ElementTree.fromstring(render.junit(page(**verdicts)).encode()).find("testsuite")
    assert suite is not None
    assert (suite.get("failures"), suite.get("errors"), suite.get("skipped")) == ("1", "1", "1")
    assert [child.tag for case in suite.findall("testcase") for child in case] == ["failure", "error", "skipped"]


def test_minutes_are_summed_by_track(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add("spent", NOW, track="A", attention=30, exploration=5)
    ledger.add("spent", NOW, track="A", attention=15, exploration=0)
    result = Result("A1", Verdict.PASS, "", NOW, "", seconds=90.0)
    ledger.result(result, NOW, "here", "run")
    first = budgets(GRAPH, ledger.lines(), {"A1": result, "A2": replace(result, verdict=Verdict.FAIL)})[0]
    assert (first.attention_spent, first.exploration_spent, first.checks) == (45, 5, 1.5)
    assert first.attention_planned == sum(each.attention for each in GRAPH.of_track("A"))
    assert first.open == len(GRAPH.of_track("A")) - 1


def test_what_is_waived_is_done() -> None:
    assert done(page(A1=Verdict.WAIVED, A2=Verdict.FAIL, A3=Verdict.UNKNOWN, A4=Verdict.PASS).results) == {"A1", "A4"}


GOOD = {"criterion": '"A5"', "reason": '"Kong comes later"', "owner": '"ops"', "until": "2026-12-31"}
TODAY = from_rfc3339("2026-11-26T00:00:00Z")


def waiver_file(folder: Path, **fields: str) -> Path:
    path = folder / "waivers.toml"
    path.write_text("[[waiver]]\n" + "".join(f"{name} = {value}\n" for name, value in {**GOOD, **fields}.items()))
    return path


def test_waivers_are_read(tmp_path: Path) -> None:
    assert waivers.load(waiver_file(tmp_path), TODAY)["A5"].owner == "ops"
    assert waivers.load(tmp_path / "none.toml", TODAY) == {}


@pytest.mark.parametrize(
    "fields",
    [
        {"reason": '""'},
        {"owner": '" "'},
        {"until": '"soon"'},
        {"until": "2026-12-31T00:00:00Z"},
        {"because": '"x"'},
        {"reason": "not TOML"},
    ],
)
def test_a_waiver_without_reason_owner_or_end_is_refused(tmp_path: Path, fields: dict[str, str]) -> None:
    with pytest.raises(Unprocessable, match=r"waivers\.toml"):
        waivers.load(waiver_file(tmp_path, **fields), TODAY)


def test_evidence_is_kept_in_one_form(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.keep({"a": 1, "b": "ü"}) == ledger.keep(json.loads('{"b": "ü", "a": 1}'))
