"""The page of the baseline, docs/saas/load-test-baseline.md, from the reports of load tests and of a capacity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kgents.errors import Unprocessable
from kgents.load import capacity_report, charts, report
from kgents.load.profiles import Name

_HEAD = """# Load test: the baseline

Written by `kgents loadtest page` from the files evidence/load-*.json and evidence/capacity.json; never edit it by hand.

Requests start at a constant rate, whether or not earlier ones were answered, and a latency counts from the moment in
which its request was meant to start: a target that stands still is charged for every request that it kept waiting.
Percentiles are of good answers. The traffic is a mix: chat completions with messages of 12, 150 and 1,500 words,
streams, runs in sessions, new sessions and usage queries, from several tenants with two keys each, all to
`kgents:echo`, so that what is measured is kgents and no model. Event bus, meter and database were connected throughout;
a run in which they were not, in which the generator was the bottleneck, or in which the target was not the same to the
end, is not taken here.

Generator and target share the machine, unless a command says otherwise, so rates are lower than on a machine of the
target's own.
"""


def write(evidence: Path, to: Path) -> list[Path]:
    """Write the page and its pictures. Raises Unprocessable for a report that is not valid, and without any."""
    documents = [found for name in Name if (found := _read(evidence / f"load-{name}.json", "load test"))]
    if not documents:
        raise Unprocessable(
            f"There is no load-*.json in {evidence}. Make some with: kgents loadtest --up --out {evidence}",
            code="no-report",
        )
    for document in documents:
        if not document["valid"] and not report.is_only_closed_loop(document):
            why = "; ".join(reason["text"] for reason in document["reasons"])
            raise Unprocessable(
                f"The report of {document['profile']['name']} is not valid: {why}. Run it again.", code="not-valid"
            )
    to.parent.mkdir(parents=True, exist_ok=True)
    capacity = _read(evidence / "capacity.json", "capacity")
    parts, files = [_HEAD, _machine([*documents, *([capacity] if capacity else [])])], [to]
    for document in documents:
        picture = to.parent / f"load-{document['profile']['name']}.png"
        is_drawn = charts.draw(document, picture)
        files += [picture] * is_drawn
        parts.append(report.markdown(document, picture=picture.name if is_drawn else "", level=2))
    if capacity:
        picture = to.parent / "capacity.png"
        is_drawn = charts.draw_capacity(capacity, picture)
        files += [picture] * is_drawn
        parts.append(capacity_report.markdown(capacity, picture=picture.name if is_drawn else "", level=2))
    to.write_text("\n".join(parts))
    return files


def _read(path: Path, kind: report.Kind) -> dict[str, Any] | None:
    return report.read(path, kind) if path.exists() else None


def _machine(documents: list[dict[str, Any]]) -> str:
    machines = [document["machine"] for document in documents]
    if any(machine != machines[0] for machine in machines):
        raise Unprocessable("The reports come from different machines. Run all of them on one.", code="machines")
    commits = list(dict.fromkeys(document["target"]["commit"] for document in documents))
    rows = [[name, value] for name, value in machines[0].items()]
    rows.append(["commit", ", ".join(commits)])
    began = sorted(document["began"] for document in documents)
    rows.append(["measured", f"{began[0]} to {began[-1]}"])
    rows.append(["commands", "<br>".join(f"`{document['command']}`" for document in documents)])
    return "## The machine\n\n" + report.table(["", ""], rows)
