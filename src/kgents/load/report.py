"""A load test's report: Markdown and files, from what `run` answered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from kgents.errors import Unprocessable
from kgents.load import charts

Document = Mapping[str, Any]
Kind = Literal["load test", "capacity"]
_PARTS: Mapping[Kind, Sequence[str]] = {
    "load test": ("command", "began", "machine", "profile", "target", "steps", "valid", "reasons"),
    "capacity": ("command", "began", "machine", "target", "points", "usl", "stress", "demand", "proposal", "reasoning"),
}
_SHOWN = ("p50", "p95", "p99", "max")


def write(document: Document, folder: Path) -> list[Path]:
    """The report's files: JSON, Markdown, and a picture where matplotlib is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"load-{document['profile']['name']}"
    files = [stem.with_suffix(".json"), stem.with_suffix(".md")]
    picture = stem.with_suffix(".png")
    picture.unlink(missing_ok=True)
    if charts.draw(document, picture):
        files.append(picture)
    files[0].write_text(json.dumps(document, indent=1) + "\n")
    files[1].write_text(markdown(document, picture=picture.name if picture in files else ""))
    return files


def read(path: Path, kind: Kind) -> dict[str, Any]:
    """What a report's JSON file holds. Raises Unprocessable for what is no report of this version and kind."""
    with understood(path):
        found: dict[str, Any] = json.loads(path.read_text())
        if found["schema"] != 1:
            raise ValueError(f"its schema is {found['schema']!r}")
    if missing := [name for name in _PARTS[kind] if name not in found]:
        file = "capacity.json, which kgents capacity" if kind == "capacity" else "a load-*.json, which kgents loadtest"
        raise Unprocessable(
            f"{path} is no report of a {kind}: it has no {', '.join(missing)}. Give {file} writes.", code="no-report"
        )
    return found


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Raise Unprocessable where the block does not find in a report what every report of this version has."""
    try:
        yield
    except KeyError as error:
        raise _no_report(path, f"it has no {error}") from error
    except (ValueError, TypeError, AttributeError, IndexError, ArithmeticError, RecursionError) as error:
        raise _no_report(path, str(error)) from error


def _no_report(path: Path, why: str) -> Unprocessable:
    return Unprocessable(f"{path} is no report of this version: {why}. Make it again.", code="no-report")


def is_only_closed_loop(document: Document) -> bool:
    """Whether the one reason not to believe it is that it is the closed loop that was asked for."""
    return [reason["code"] for reason in document["reasons"]] == ["closed-loop"]


def summary(document: Document) -> str:
    """What a user reads at the end."""
    lines = [table(*_steps(document["steps"], plain=True))] if len(document["steps"]) > 1 else []
    if document["profile"]["searches"]:
        lines.append(_knee(document) + "\n")
    lines.append(verdict(document))
    return "\n".join(lines)


def verdict(document: Document) -> str:
    """Valid, or why not."""
    if document["valid"]:
        return "valid: the generator kept its rate, every integration was on, the target stayed the same\n"
    return "NOT VALID\n" + "".join(f"- {reason['text']}\n" for reason in document["reasons"])


def markdown(document: Document, *, picture: str = "", level: int = 1) -> str:
    """The report as a page, or as a part of one from a heading of this level."""
    profile, steps = document["profile"], document["steps"]
    parts = [
        f"{'#' * level} Load: {profile['name']}\n",
        f"{profile['about'][0].upper()}{profile['about'][1:]}. {_circumstances(document)}\n",
        f"**{'Valid' if document['valid'] else 'Not valid'}.**"
        + "".join(f"\n- {reason['text']}" for reason in document["reasons"])
        + "\n",
    ]
    if profile["searches"]:
        parts.append(_knee(document) + "\n")
    if profile["users"]:
        parts.append(_not_shown(document) + "\n")
    if picture:
        parts.append(f"![{profile['name']}]({picture})\n")
    parts.append(table(*_steps(steps)))
    parts.append(f"{'#' * (level + 1)} By kind of request\n")
    parts.append(table(*_kinds(_shown(document))))
    parts.append(f"{'#' * (level + 1)} What the processes took\n")
    parts.append(table(*_processes(_shown(document))))
    health = document["after"]["health"]["components"]
    parts.append(
        "Integrations: "
        + ", ".join(f"{name} {found['status']} ({found['mode']})" for name, found in health.items())
        + f". Events that had not reached the meter half a minute after the load: {_left(document)}.\n"
    )
    return "\n".join(parts)


def _left(document: Document) -> str:
    return "unknown" if document["backlog"] is None else str(document["backlog"])


def _circumstances(document: Document) -> str:
    target = document["target"]
    return (
        f"`{document['command']}`, {document['began']}, kgents {target['version']} at commit {target['commit']}, "
        f"{target['tenants']} tenants. Target: 99 of 100 answers within {target['p99_ms']:g} ms."
    )


def _shown(document: Document) -> Document:
    """The step whose details are shown: the knee of a search, else the one with the highest rate."""
    steps: Sequence[Document] = document["steps"]
    met = [step for step in steps if step["met"]] if document["profile"]["searches"] else []
    return max(met or steps, key=lambda step: float(step["offered"]))


def _knee(document: Document) -> str:
    knee = document["knee"]
    if knee is None:
        return "The knee: below every rate that was tried."
    missed = [step["offered"] for step in document["steps"] if step["offered"] > knee]
    beyond = f"{min(missed):g} requests/s missed it" if missed else "no rate that was tried missed it"
    return f"The knee: {knee:g} requests/s met the target, {beyond}."


def _not_shown(document: Document) -> str:
    users, wait = document["profile"]["users"], document["profile"]["wait"]
    found = document["steps"][0]
    middle = found["latency_ms"].get("p50", 0.0)
    most = users / (wait + middle / 1000)
    return (
        f"What this does not show: capacity. {users} users that wait {wait * 1000:g} ms after each answer of "
        f"{middle:g} ms ask for {most:.0f} requests/s, however fast the target is; it answered {found['achieved']:g}. "
        "And when the target stands still, the users stop asking, so its worst moments are hardly in the percentiles. "
        "What it can do is in the stress profile, how it answers at a rate in the baseline."
    )


def _steps(steps: Sequence[Document], *, plain: bool = False) -> tuple[list[str], list[list[str]]]:
    head = ["step", "offered/s", "sent/s", "answered/s", "errors", "p50 ms", "p95 ms", "p99 ms", "p99.9 ms"]
    head += ["first token p99 ms", "late p99 ms", "target"]
    rows = [
        [
            *(step["name"], _number(step["offered"]) if step["offered"] else "closed loop"),
            *(_number(step["sent"]), _number(step["achieved"]), _errors(step)),
            *(_number(step["latency_ms"].get(name)) for name in ("p50", "p95", "p99", "p99_9")),
            *(_number(step["first_token_ms"].get("p99")), _number(step["late_ms"].get("p99"))),
            "met" if step["met"] else ("missed" if plain else "**missed**") + _behind(step),
        ]
        for step in steps
    ]
    return head, rows


def _behind(step: Document) -> str:
    left = step.get("backlog", 0)  # told of a search's steps only
    return "" if left == 0 else f" ({'it is unknown how many' if left is None else left} events behind)"


def _errors(step: Document) -> str:
    wrong = {name: count for name, count in step["statuses"].items() if not name.startswith("2")}
    said = ", ".join(f"{count} x {name}" for name, count in wrong.items())
    return f"{step['errors']} ({said})" if said else "0"


def _kinds(step: Document) -> tuple[list[str], list[list[str]]]:
    rows = [
        [kind, f"{found['requests']:,}", str(found["errors"])]
        + [_number(found["latency_ms"].get(name)) for name in _SHOWN]
        for kind, found in step["kinds"].items()
    ]
    first = step["first_token_ms"]
    if first:
        rows.append(["stream, first token", "", "", *(_number(first.get(name)) for name in _SHOWN)])
    return ["kind", "requests", "errors", *(f"{name} ms" for name in _SHOWN)], rows


def _processes(step: Document) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            *(name, f"{found['cores']:.2f}", f"{found['most_cores']:.2f}"),
            *(_number(found["most_memory_mib"]), f"{found['memory_growth_mib']:+.1f}"),
        ]
        for name, found in step["processes"].items()
    ]
    used = step["generator"]
    rows.append(["load: vegeta", f"{used['vegeta_cores']:.2f}", "", "", ""])
    rows.append(["load: driver of streams", f"{used['driver_cores']:.2f}", "", "", ""])
    rows.append(["other programs of the machine", f"{used['other_programs_cores']:.2f}", "", "", ""])
    return ["process", "cores", "most cores", "most memory MiB", "growth MiB"], rows


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
