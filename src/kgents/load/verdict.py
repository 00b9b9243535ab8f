"""Whether a run may be believed: pure rules over what was recorded. Valid is not the same as good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

LEAST_SENT = 0.99  # of what was to be sent
LATE_MS, LATE_SHARE = 10.0, 0.2  # late starts: so much at the 99th percentile, and so much of the latency
BUSY = 0.8  # of what the generator's programs could use
NOISE = 0.25  # of the machine's cores, used by programs that have nothing to do with the run
INTEGRATIONS = ("sql", "nats", "meter")


class Reason(NamedTuple):
    """Why a run can't be believed: a stable code, and a sentence."""

    code: str
    text: str


def reasons(document: Mapping[str, Any], expected: Mapping[str, str]) -> list[Reason]:
    """Every reason not to believe a run. `expected`: `version`, `commit` and `mode` that the target was told to have.
    None of them means that the figures are the target's; what nobody could see counts against it.
    """
    return [*target(document, expected), *integrations(document, expected), *generator(document)]


def target(document: Mapping[str, Any], expected: Mapping[str, str]) -> list[Reason]:
    """Whether the target was what it was told to be, and stayed it."""
    before, after, found = document["before"], document["after"], []
    if not before["version"] or before["version"] != after["version"]:
        found.append(Reason("version", f"its version was {before['version']!r} before, {after['version']!r} after"))
    for name, seen in (("version", before["version"]), ("commit", document["target"]["commit"])):
        wanted = expected.get(name, "")
        is_it = seen == wanted or (
            name == "commit" and len(wanted) >= 7 and seen.startswith(wanted) and "+" not in seen
        )
        if wanted and not is_it:
            found.append(Reason(name, f"its {name} is {seen or 'unknown'}, not {wanted}"))
    if not before["processes"]:
        found.append(
            Reason("process", "nothing shows which processes served: give --metrics with their pages, or --pods")
        )
    # One that came, as when an autoscaler adds a pod, is no other one; one that went or was started again is.
    elif changed := [name for name, was in before["processes"].items() if after["processes"].get(name) != was]:
        found.append(Reason("process", f"not the same processes served to the end: {', '.join(changed)}"))
    return found


def integrations(document: Mapping[str, Any], expected: Mapping[str, str]) -> list[Reason]:
    """Whether the event bus, the meter and the database were on, before, after and at every look between."""
    found = []
    looks = [("before", document["before"]["health"]), ("after", document["after"]["health"])]
    for when, health in looks:
        for name in INTEGRATIONS:
            component = health["components"].get(name, {"status": "unknown", "mode": "unknown"})
            if component["status"] != "connected":
                found.append(Reason("integration", f"{name} was {component['status']} {when} the run"))
            elif expected.get("mode") and component["mode"] != expected["mode"]:
                found.append(Reason("integration", f"{name} is {component['mode']}, not {expected['mode']}"))
        if health["status"] != "ok":
            found.append(Reason("health", f"its health was {health['status']} {when} the run"))
    for step in deciding(document):
        found += [Reason("integration", f"{name} was {status} during the run") for name, status in step["unwell"]]
    if document["backlog"] is None:
        found.append(Reason("integration", "nothing shows whether all usage had reached the meter after the run"))
    elif document["backlog"]:
        found.append(Reason("integration", f"{document['backlog']} events had not reached the meter after the run"))
    return list(dict.fromkeys(found))


def deciding(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The steps that the figures come from: of a search those that met the target, and the least that missed it."""
    steps = list(document["steps"])
    if not document["profile"]["searches"]:
        return steps
    missed = sorted((step for step in steps if not step["met"]), key=lambda step: float(step["offered"]))
    return [*(step for step in steps if step["met"]), *missed[:1]]


def generator(document: Mapping[str, Any]) -> list[Reason]:
    """Whether the generator, or other programs of its machine, rather than the target, decided the figures."""
    if document["profile"]["users"]:
        users, wait = document["profile"]["users"], document["profile"]["wait"]
        return [
            Reason(
                "closed-loop",
                f"{users} users that wait {wait * 1000:g} ms after each answer can't ask for more than "
                f"{users / wait:g} requests/s, whatever the target can do",
            )
        ]
    cores, found = int(document["machine"]["cores"]), []
    for step in deciding(document):
        at = f"at {step['offered']:g} requests/s"
        found += [Reason(reason.code, f"{at} {reason.text}") for reason in of_step(step, cores)]
        # Of another target, a part may run beside the generator without being seen; it is no other program.
        if document["target"]["is_own"] and (noisy := noise(step["generator"]["other_programs_cores"], cores)):
            found.append(Reason(noisy.code, f"{at} {noisy.text}"))
    return found


def of_step(step: Mapping[str, Any], cores: int) -> Sequence[Reason]:
    """The same of one step."""
    found = []
    if step["sent"] < LEAST_SENT * step["offered"]:
        found.append(Reason("generator-rate", f"the generator sent only {step['sent']:g} requests/s"))
    late = step["late_ms"].get("p99", 0.0)
    slowest = max(step[name].get("p99", 0.0) for name in ("latency_ms", "first_token_ms"))
    if late > LATE_MS and late > LATE_SHARE * slowest:
        found.append(Reason("generator-late", f"1 of 100 requests started {late:g} ms late or more"))
    return [*found, *cpu(step["generator"], cores)]


def cpu(used: Mapping[str, float], cores: int) -> Sequence[Reason]:
    """Whether the generator's programs had too little of the machine's cores."""
    found = []
    if used["vegeta_cores"] > BUSY * cores:
        found.append(Reason("generator-cpu", f"vegeta used {used['vegeta_cores']:.2f} of {cores} cores"))
    if used["driver_cores"] > BUSY:
        found.append(Reason("generator-cpu", f"the streams' driver used {used['driver_cores']:.2f} of its one core"))
    return found


def points(document: Mapping[str, Any]) -> list[Reason]:
    """Why the points of a capacity can't be believed, each on its own."""
    found = []
    for point in document["points"]:
        at, cores = f"with {point['size']} at once", int(document["machine"]["cores"])
        if point["errors"]:
            found.append(Reason("errors", f"{point['errors']} errors {at}"))
        found += [Reason(reason.code, f"{at} {reason.text}") for reason in cpu(point["generator"], cores)]
        found += [Reason("integration", f"{name} was {status} {at}") for name, status in point["unwell"]]
        if point["backlog"] != 0:
            left = "nobody knows how many" if point["backlog"] is None else point["backlog"]
            found.append(Reason("integration", f"{left} events had not reached the meter half a minute later {at}"))
    return found


def noise(others: float, cores: int) -> Reason | None:
    """Whether other programs took so much of the machine (in cores) that they are in the figures."""
    if others <= NOISE * cores:
        return None
    return Reason("noise", f"other programs used {others:.2f} of the machine's {cores} cores")
