"""docs/reliability.md, from what the full counts came to: `python -m tests.faults.page`, as `make faults` ends, and
`make fuzz`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "evidence" / "faults.jsonl"
PAGE = ROOT / "docs" / "reliability.md"

HEAD = """# Reliability

Written by `make faults` and `make fuzz`; never edit it by hand. Each line is a promise, what came of trying to break
it, and the command that tries again, with `KGENTS_SEED=...` before it for the same faults or inputs in the same order.
The processes are real: a `kgents up` with its API, worker, meter and nats-server, on SQLite and on PostgreSQL.

Clients note what they asked and what they were answered; a checker of its own then compares that with the runs, the
ledger and the meter. A violation is anything acknowledged that is not there, there twice, or with other figures;
anything refused that was carried out; any answer but the documented ones; and any difference between runs, ledger and
meter. Controls are the same faults on a kgents that lacks what keeps the promise: there, violations must be found.

Zero failures in N independent trials bound the rate of failures at about 3/N (95 %); requests that share a fault are
not independent, so both are given.
"""

FAILED = """
## Counts that failed

Full counts before the latest ones, in their order, in which a promise was not kept, or not in time. The bugs below are
what was mended after them.
"""


@dataclass(frozen=True, slots=True)
class Bug:
    """A defect that these tests found."""

    what: str
    cause: str
    again: str


BUGS = [
    Bug(
        "Two requests with one Idempotency-Key on PostgreSQL could both be carried out.",
        "The key was looked for before it was claimed; it is now claimed by its unique insert, before anything else.",
        "pytest tests/contract/api/test_idempotency.py",
    ),
    Bug(
        "Two runs could be under way in one session on PostgreSQL.",
        "Both transactions saw the session free; the session's row is now held.",
        "pytest tests/integration/agents",
    ),
    Bug(
        "Two groups of commits on PostgreSQL could wait for each other for a second.",
        "A group wrote for several operations in one transaction; it is one operation now, its rows in one order.",
        "pytest tests/integration/store",
    ),
    Bug(
        "After a full disk the health page told of one message for ever that waits on the bus.",
        "nats-server kept a message whose acknowledgement it had kept, too; consumers now purge what is acknowledged.",
        "make faults ARGS=tests/faults/test_full_disks.py",
    ),
    Bug(
        "After a power cut the health page could tell of one message for ever that waits on the bus, as after a full "
        "disk.",
        "Messages acknowledged out of their order lay behind others, and a consumer purged only up to the first that "
        "was not acknowledged; it goes on until all is that was handed out before.",
        "pytest tests/integration/bus -k came_back",
    ),
    Bug(
        "A request's body could hold `false` for a number and 0 for a truth value, against the API's document.",
        "Values were converted as in a form; a body's values must now be of the types that the document gives.",
        "make fuzz ARGS=tests/fuzz/test_api.py",
    ),
    Bug(
        "The document called each event of a run's stream a string.",
        "The framework wrote it in; what an event is is now left open there, as OpenAPI 3.1 has no word for it.",
        "make fuzz ARGS=tests/fuzz/test_api.py",
    ),
    Bug(
        "The calculator failed with `0 ** -0.5 // 2` instead of refusing it.",
        "An infinite value in the middle of an expression was not looked for; each value is now checked.",
        "make fuzz ARGS=tests/fuzz/test_parsers.py",
    ),
    Bug(
        "A request id, a traceparent and an identifier could end in a line break.",
        "Their patterns ended in `$`, which Python also finds before a last line break; the whole text must now match.",
        "make fuzz ARGS=tests/fuzz/test_parsers.py",
    ),
    Bug(
        "A queued run whose message the bus had lost stayed queued for ever, with its reservation.",
        "The queue was the only copy of it; the sweeper finds such runs without a doubt and sends them again.",
        "make faults ARGS=tests/faults/test_lost_messages.py",
    ),
    Bug(
        "A stream that was lost on a NATS server that stayed up was never made again: usage and runs waited for ever.",
        "Streams were made on a new connection only; now also when one is missed.",
        "pytest tests/integration/bus/test_streams.py",
    ),
    Bug(
        "An API process that was asked to stop cut off its requests and runs instead of letting them end.",
        "Its HTTP server took signals as well: each came twice, and the second means at once. Now one takes them.",
        "pytest tests/integration/system/test_durability.py -k asked_to_stop",
    ),
    Bug(
        "On SQLite each heartbeat and each sweep read every run that there ever was.",
        "Their conditions were not those of the index on unfinished runs; now they are, in its own words.",
        "pytest tests/integration/agents/test_plans.py",
    ),
    Bug(
        "`kgents up` ended, with all its processes, when it had to start one of them again while the disk was full.",
        "It could not write which process ids it has, and took that for the end; it now tries again.",
        "pytest tests/faults/test_full_disks.py -k dies",
    ),
    Bug(
        "A run whose admission PostgreSQL committed, but could not confirm before the connection broke, stayed "
        "`running` with its reservation and its Idempotency-Key until the process ended.",
        "Its process was alive and never heard of it; a process now gives back runs that it does not know.",
        "pytest tests/integration/workers/test_keeper.py; make faults ARGS=tests/faults/test_partitions.py",
    ),
    Bug(
        "What a provider had sent before its connection broke, and its report of the usage with it, was not counted "
        "where it had not been read yet.",
        "aiohttp tells of the break before it gives what came earlier; that is read first now.",
        "pytest tests/unit/agents/models/test_chat_client.py; "
        "make faults ARGS=tests/faults/test_cut_provider_streams.py",
    ),
    Bug(
        "A run failed whose provider had said all of its answer, `[DONE]` included, when the connection then broke or "
        "stayed open.",
        "The end of the connection was taken for a part of the answer; it is waited for half a second, and nothing "
        "comes of it any more.",
        "pytest tests/contract/api/test_provider_faults.py -k whole",
    ),
    Bug(
        "A provider's stream whose connection broke after its usage was told was metered with kgents' own count where "
        "that was higher.",
        "The count and the report were taken together; what is reported with the end of an answer now stands as it is.",
        "pytest tests/contract/api/test_provider_faults.py -k reported",
    ),
    Bug(
        "The usage of an answer that ended in order, but without a report, was not marked as estimated.",
        "Only calls that were cut off were marked; now every count of ours is.",
        "pytest tests/contract/api/test_provider_faults.py -k reported",
    ),
    Bug(
        "On PostgreSQL every group of requests read all runs that there were, until the first ANALYZE.",
        "Connections kept the plan of a moment at which it was small; plans that read a whole table are off now.",
        "pytest tests/integration/agents -k costs_the_same",
    ),
    Bug(
        "A run in a session read all runs that its tenant ever had, on both databases; so did lists of its runs.",
        "No index began with tenant and session, so that of the tenant's runs was taken; there are such indexes now.",
        "pytest tests/integration/agents -k 'costs_the_same or index'",
    ),
    Bug(
        "A page of usage events read all events that the tenant ever had, and sorted them.",
        "They were listed by id, which no index has behind the tenant; they are listed by time now, as the API says.",
        "pytest tests/integration/usage/test_events.py",
    ),
    Bug(
        "An Idempotency-Key with a space in it was taken, against the API's document.",
        "The document and the code each had their own idea of a key; both have the same pattern now.",
        "make fuzz ARGS=tests/fuzz/test_api.py; KGENTS_SEED=2109247598 for the one that found it",
    ),
    Bug(
        "The model `kgents:echo` failed with JSON schemas that have lengths written as `3.0` or bounds beyond 64 bits.",
        "Lengths were taken as they stood, and integers made that no JSON holds; both are looked at now.",
        "pytest tests/unit/agents/models/test_json_schema.py; "
        "make fuzz ARGS='tests/fuzz/test_parsers.py -k json_schemas'",
    ),
    Bug(
        "A chat completion whose image was a data URL with letters beyond ASCII was answered with a 500.",
        "Python has another error for these than for other wrong base64; both are a refusal now.",
        "pytest tests/contract/api/test_bad_input.py -k image; "
        "make fuzz ARGS='tests/fuzz/test_parsers.py -k chat_requests'",
    ),
    Bug(
        "A body of a few KB with quotes that never close held up an API process for seconds, one of a MB for hours.",
        "The look at the depth of JSON began anew at each quote; it takes linear time now, whatever the body.",
        "pytest tests/contract/api/test_bad_input.py -k quotes; pytest tests/fuzz/test_parsers.py -k 'long or square'",
    ),
    Bug(
        "Of two API keys side by side in a log line the second was not masked.",
        "The first one's pattern took the beginning of the second for its own end; it ends where another key begins.",
        "pytest tests/fuzz/test_parsers.py -k 'long and redaction'",
    ),
    Bug(
        "A kgents whose processes died again and again took 6 s to be back each time, and sometimes more than 10 s.",
        "A process was started again after up to 5 s, and a client waited as long; it is 2 s at most now.",
        "make faults ARGS=tests/faults/test_crash_points.py",
    ),
    Bug(
        "At three times the capacity every request waited for seconds, also those of tenants who asked for little, and "
        "the health page did not answer.",
        "Whatever came was begun at once; there are places now, tenants take turns, and what is too much is refused.",
        "make faults ARGS=tests/faults/test_overload.py",
    ),
    Bug(
        "With PostgreSQL's disk full the health page said `ok` while every request was refused.",
        "It looked whether a small write succeeds, which found room; what became of the last requests counts as well.",
        "pytest tests/faults/test_full_disks.py -k database",
    ),
    Bug(
        "A process that stood still for two seconds took PostgreSQL for away.",
        "A timer that was overdue by then rang before the answer was read; it now waits once more where it rings late.",
        "pytest tests/unit/store/test_patience.py",
    ),
    Bug(
        "An invoice was not collected where a worker was killed just after it had asked Stripe for a draft.",
        "The next one asked as well, and the two drafts were taken for an invoice that is there twice; drafts are sent "
        "to nobody, and all go on with the oldest now.",
        "make faults ARGS=tests/faults/test_stripe.py",
    ),
]


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure that is not reached, and why."""

    what: str
    why: str


LIMITS = [
    Limit(
        "At three times the capacity the goodput is to be 90 % of the peak.",
        "A refusal is two system calls and some lines of Python, which is a tenth of a good answer's time on SQLite; "
        "at three times the capacity there are two for each good answer. On PostgreSQL a good answer takes longer, so "
        "that refusals weigh less.",
    ),
    Limit(
        "A quiet tenant's p99 under overload is to be at most 1.5 times its usual one.",
        "It waits for no place, but its request and its two commits share an event loop and a writer with as many "
        "requests as there are places. Fewer places would make it quicker, and the goodput less.",
    ),
]


# What a figure says where a promise was not kept, or not in time.
_BROKEN = re.compile(r"(?<![\d,])[1-9][\d,]* (violations|leaks|differences)|not back at")
_HEAD = ["| promise | figure | command | seed | commit |", "| --- | --- | --- | --- | --- |"]


def _row(result: dict[str, str]) -> str:
    command = result["command"].removeprefix("KGENTS_FULL=1 pytest ")
    verb = "fuzz" if command.startswith("tests/fuzz") else "faults"
    commit, *dirty = result["commit"].split("-")
    cells = (
        result["promise"],
        result["figure"],
        f"`make {verb} ARGS={command}`",
        result["seed"],
        "-".join([commit[:10], *dirty]),
    )
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def write_page() -> None:
    """Write the page: the latest result of each promise on each system, and every earlier one that broke it."""
    results = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    # A figure begins with the system that it is of.
    latest = {(result["promise"], result["figure"].partition(":")[0]): result for result in results}
    table = [*_HEAD, *(_row(result) for _, result in sorted(latest.items()))]
    broken = [
        result
        for result in results
        if _BROKEN.search(result["figure"]) and "control" not in result["promise"] and result not in latest.values()
    ]
    earlier = [*_HEAD, *(_row(result) for result in broken)]
    bugs = ["| bug | cause, and what was done | the test that finds it |", "| --- | --- | --- |"]
    bugs += [f"| {bug.what} | {bug.cause} | `{bug.again}` |" for bug in BUGS]
    limits = ["| figure | why it is not reached |", "| --- | --- |"]
    limits += [f"| {limit.what} | {limit.why} |" for limit in LIMITS]
    parts = [
        HEAD,
        "## Promises\n",
        "\n".join(table),
        FAILED,
        "\n".join(earlier),
        "\n## What is not reached\n",
        "\n".join(limits),
        "\n## Bugs that these tests found\n",
        "\n".join(bugs),
        "",
    ]
    PAGE.write_text("\n".join(parts))


if __name__ == "__main__":
    write_page()
