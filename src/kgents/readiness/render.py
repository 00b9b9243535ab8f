"""A run's results as the checklist (Markdown and HTML) and as JUnit's XML for CI."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from kgents.clock import to_rfc3339
from kgents.readiness.model import Criterion, Graph, Result, Verdict, standing

TITLE = "Production checklist"
HEAD = """Written by `kgents ready render`; never edit it by hand. Each line is a check that ran, and `kgents ready`
runs it again. What could not be checked is **unknown**, and unknown is no pass. `kgents ready explain A3` says what a
criterion checks and how to mend it. The evidence is in `evidence/ready`, each piece named by its hash."""
CHECKLIST = Path("docs/saas/production-checklist.md")
LAST = "last line of the ledger"
NEVER = "It was never checked here."


class Page(NamedTuple):
    """What is rendered: the results at one target, and the ledger's last hash with them."""

    graph: Graph
    results: Mapping[str, Result]
    target: str
    last: str
    time: int

    def result(self, criterion: Criterion) -> Result:
        """What a criterion came to; unknown where it was never checked."""
        found = self.results.get(criterion.id)
        return found or Result(criterion.id, Verdict.UNKNOWN, NEVER, 0, "")

    @property
    def summary(self) -> str:
        """How many there are of each verdict."""
        verdicts = [self.result(each).verdict for each in self.graph.criteria]
        return ", ".join(f"{verdicts.count(each)} {each}" for each in Verdict if each in verdicts)

    @property
    def is_ready(self) -> bool:
        """Whether nothing stands in the way."""
        return not standing(self.result(each) for each in self.graph.criteria)

    @property
    def verdict(self) -> str:
        """The whole in a line."""
        return f"{'Ready' if self.is_ready else 'Not ready'}: {self.summary} of {len(self.graph.criteria)} criteria."


def markdown(page: Page) -> str:
    """The checklist as docs/saas/production-checklist.md."""
    lines = [
        f"# {TITLE}",
        "",
        HEAD,
        "",
        f"**{page.verdict}**",
        "",
        *(f"- {name}: {value}" for name, value in _facts(page)),
    ]
    for track in page.graph.tracks:
        after = f" (after {', '.join(track.needs)})" if track.needs else ""
        lines += [
            "",
            f"## {track.id}. {track.name}{after}",
            "",
            "| | criterion | verdict | what was found | seen | evidence |",
        ]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        for each in page.graph.of_track(track.id):
            result = page.result(each)
            verdict = result.verdict if result.verdict is Verdict.PASS else f"**{result.verdict}**"
            cells = (each.id, each.claim, verdict, result.detail, _seen(result), _evidence(result))
            lines.append(f"| {' | '.join(_cell(str(cell)) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _facts(page: Page) -> list[tuple[str, str]]:
    return [
        ("installation", f"`{page.target}` (its cluster's id and namespace, or its address)"),
        ("rendered", _minute(page.time)),
        (LAST, f"`{page.last}`"),
    ]


def last_line(checklist: Path) -> str:
    """The hash of the ledger's last line when a checklist was rendered; nothing where there is no checklist."""
    text = checklist.read_text(errors="replace") if checklist.exists() else ""
    found = re.search(f"^- {LAST}: `([0-9a-f]+)`$", text, re.MULTILINE)
    return found[1] if found else ""


def _seen(result: Result) -> str:
    if not result.time:
        return ""
    return f"{_minute(result.time)}{f' at {result.commit[:12]}' if result.commit else ''}"


def _minute(time: int) -> str:
    return to_rfc3339(time)[:16].replace("T", " ") + " UTC"


def _evidence(result: Result) -> str:
    return f"`{result.evidence[:12]}`" if result.evidence else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def html(page: Page) -> str:
    """The checklist as a page of its own, with nothing loaded from elsewhere."""
    from jinja2 import Environment

    template = Environment(autoescape=True).from_string((Path(__file__).parent / "page.html").read_text())
    tracks = [
        (track, [(each, page.result(each), page.graph.blocks(each)) for each in page.graph.of_track(track.id)])
        for track in page.graph.tracks
    ]
    return template.render(title=TITLE, page=page, tracks=tracks, facts=_facts(page), seen=_seen)


def junit(page: Page) -> str:
    """A test suite for each track: fail is a failure, unknown an error, waived is skipped.

    The form is that of https://github.com/testmoapp/junitxml, which CI systems read.
    """
    suites = ElementTree.Element("testsuites", name="kgents ready")
    for track in page.graph.tracks:
        criteria = page.graph.of_track(track.id)
        verdicts = [page.result(each).verdict for each in criteria]
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name=f"{track.id} {track.name}",
            tests=str(len(criteria)),
            failures=str(verdicts.count(Verdict.FAIL)),
            errors=str(verdicts.count(Verdict.UNKNOWN)),
            skipped=str(verdicts.count(Verdict.WAIVED)),
        )
        for each in criteria:
            result = page.result(each)
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=f"ready.{track.id}",
                name=f"{each.id} {each.claim}",
                time=f"{result.seconds:.1f}",
            )
            kind = {Verdict.FAIL: "failure", Verdict.UNKNOWN: "error", Verdict.WAIVED: "skipped"}.get(result.verdict)
            if kind:
                ElementTree.SubElement(case, kind, message=_printable(result.detail))
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _printable(text: str) -> str:
    """Without what XML can't hold."""
    return "".join(char if char.isprintable() else " " for char in text)
