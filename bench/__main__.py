"""`python -m bench [NAME ...]`: run benchmarks; without a name all of them, and write docs/benchmarks.md.

NAME is one of those below, or NAME:sqlite and NAME:postgresql for one database only; `page` only writes the page from
what was found before. `--short` takes a fraction of the time, shows what comes of it and keeps nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import cast

from bench import chat, disk, machine, pipeline, proxy, size, start, streams, telemetry
from bench.page import section_text, write_page
from bench.report import Scale, Section
from bench.systems import Database

Run = Callable[[Database, Scale], Section]

BOTH: dict[str, Run] = {
    "chat": chat.run,
    "proxy": proxy.run,
    "pipeline": pipeline.run,
    "size": size.run,
    "telemetry": telemetry.run,
}
ONE: dict[str, Run] = {"disk": disk.run, "streams": streams.run, "start": start.run}
NAMES = [*(f"{name}:{database}" for name in BOTH for database in ("sqlite", "postgresql")), *ONE]


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join([*BOTH, *ONE, "page"]))
    parser.add_argument("--short", action="store_true", help="a quick try; keeps nothing")
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(("KGENTS_", "OTEL_"))]:
        del os.environ[name]  # what a developer has set for their own kgents must not decide how this goes
    wanted = list(_wanted(options.names, parser)) if options.names != ["page"] else []
    for name in wanted:
        section = _run(name, Scale(1, 0.2) if options.short else Scale())
        sys.stdout.write(section_text(section) + "\n")
        sys.stdout.flush()
        if not options.short:
            section.save(name)
    if options.names in ([], ["page"]) and not options.short:
        write_page(NAMES)


def _wanted(names: list[str], parser: argparse.ArgumentParser) -> Iterator[str]:
    for name in names or NAMES:
        found = [known for known in NAMES if name in (known, known.partition(":")[0])]
        if not found:
            parser.error(f"there is no benchmark {name!r}; there are {', '.join(NAMES)}")
        yield from found


def _run(name: str, scale: Scale) -> Section:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {name}\n")
    facts = machine.facts()
    began, busy, own = time.monotonic(), machine.busy(), machine.own()
    kind, _, database = name.partition(":")
    section = (BOTH | ONE)[kind](cast("Database", database or "sqlite"), scale)
    section.took = round(time.monotonic() - began, 1)
    others = (machine.busy() - busy - machine.own() + own) / section.took
    section.machine = facts | {"others": f"{max(0.0, others):.2f}"}
    return section


if __name__ == "__main__":
    main()
