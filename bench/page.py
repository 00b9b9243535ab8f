"""docs/benchmarks.md, from what the benchmarks found."""

from __future__ import annotations

from bench.machine import ROOT
from bench.report import Profile, Section, Table, load

PAGE = ROOT / "docs" / "benchmarks.md"

_HEAD = """# Benchmarks

Written by `make bench`; never edit it by hand. The targets are the project's own, and a figure that misses its target
says so, with the reason and with what costs most. `python -m bench NAME` measures one again; the single runs are in
bench/results as JSON.

How they are measured:

- The load comes from one Python process on the same machine, which has {cores} cores: server, database, event bus,
  worker, meter and load share them, and nothing is pinned. So rates are lower than on a machine of the server's own,
  and what is compared is measured in turn (A B B A A B), under the same conditions.
- Each benchmark says how much of the cores other programs took meanwhile: much of it, and the tails of its latencies
  are theirs. To measure alone, leave the machine to it.
- A figure is the median of the turns, with the least and the most in brackets.
- Closed loop: each connection sends its next request once it has the answer to the last. It finds the most that a
  server does.
- Open loop: requests start at a constant rate, whatever becomes of earlier ones, and latency counts from the moment a
  request was meant to start; one that waits for a connection is charged for the wait. The clock is looked at every
  millisecond, so up to that much of a latency is the generator's, for both sides alike.
- Before the other's turn, and before the load ends, kgents has handed all usage to its meter.
- PostgreSQL runs with fsync on, SQLite with `synchronous=FULL`, and JetStream with `sync_interval: always`.
"""


def write_page(names: list[str]) -> None:
    """Write the page from the results of these benchmarks."""
    found = {name: section for name in names if (section := load(name)) is not None}
    sections = list(found.values())
    if not sections:
        raise SystemExit("There are no results in bench/results. Run `make bench`.")
    parts = [_HEAD.format(cores=sections[-1].machine["cores"]), _machine(sections), _summary(sections)]
    if reasons := reasons_text(sections):
        parts.append(reasons)
    parts += [section_text(section) for section in sections]
    missing = [name for name in names if name not in found]
    if missing:
        parts.append("Not measured: " + ", ".join(missing) + ".\n")
    PAGE.write_text("\n".join(parts))


def _machine(sections: list[Section]) -> str:
    facts = sections[-1].machine
    same = [name for name in ("CPU", "cores", "memory", "kernel", "Python", "kgents") if name in facts]
    rows = [[name, facts[name]] for name in same]
    commits = list(dict.fromkeys(section.machine["commit"] for section in sections))
    dates = sorted(section.machine["date"] for section in sections)
    rows += [["commit", ", ".join(commits)], ["measured", f"{dates[0]} to {dates[-1]}"]]
    return "## The machine\n\n" + _table(Table(["", ""], rows))


def _summary(sections: list[Section]) -> str:
    rows = [
        [section.title, figure.what, figure.target, figure.got, _verdict(figure.met)]
        for section in sections
        for figure in section.figures
    ]
    missed = sum(figure.met is False for section in sections for figure in section.figures)
    total = sum(figure.met is not None for section in sections for figure in section.figures)
    line = f"{total - missed} of {total} targets are met.\n\n"
    return "## All figures\n\n" + line + _table(Table(["benchmark", "figure", "target", "measured", ""], rows))


def reasons_text(sections: list[Section]) -> str:
    """Why each missed target is missed, or '' where none is."""
    rows = [
        [section.title, figure.what, figure.why]
        for section in sections
        for figure in section.figures
        if figure.met is False
    ]
    return "## What is not reached\n\n" + _table(Table(["benchmark", "figure", "why"], rows)) if rows else ""


def section_text(section: Section) -> str:
    """One benchmark's part of the page."""
    rows = [[figure.what, figure.target, figure.got, _verdict(figure.met)] for figure in section.figures]
    parts = [f"## {section.title}\n", section.how + "\n", _table(Table(["figure", "target", "measured", ""], rows))]
    parts += [_table(table) for table in section.tables]
    parts += [_profile(profile) for profile in section.profiles]
    where = section.machine
    parts.append(
        f"Measured {where['date']} at commit {where['commit']}, in {section.took:.0f} s; other programs of the machine "
        f"took {where['others']} of its {where['cores']} cores meanwhile.\n"
    )
    return "\n".join(parts)


def _profile(profile: Profile) -> str:
    rows = [[f"{share:.1f} %", f"`{where}`"] for share, where in profile.rows]
    text = f"What costs most, by own time (samples of the {profile.process} under load):\n\n"
    return text + _table(Table(["share", "function"], rows))


def _verdict(met: bool | None) -> str:
    return "" if met is None else "met" if met else "**missed**"


def _table(table: Table) -> str:
    lines = [table.head, ["---"] * len(table.head), *table.rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
