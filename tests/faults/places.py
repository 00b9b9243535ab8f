"""Every place where a kgents may have written something down, and what must not stand there.

Secrets stand nowhere but in their homes: the files of the data folder that hold them, for its owner only, and the
answer that creates a key. Texts stand where conversations are kept (TEXT_COLUMNS) and where those who watch a run read
it (the stream of run events). What a tenant's tools need is kept with the agent that has them, and shown to the tenant,
but for the values of headers.
"""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from kgents.store.tables import metadata
from tests.faults.canaries import Canaries, Finding, Kind
from tests.faults.systems import System

EVERYTHING: tuple[Kind, ...] = ("secret", "tool credential", "tool header", "text")
NO_TEXT: tuple[Kind, ...] = ("secret", "tool credential", "tool header")
SECRETS: tuple[Kind, ...] = ("secret",)

# The columns that may hold what tenants and models wrote.
TEXT_COLUMNS = {
    "agent_versions.definition",  # instructions, description, output schema
    "idempotency_keys.body",  # an answer that is kept for a retry, for a day
    "messages.message",
    "run_steps.message",
    "runs.input",
    "runs.output",
    "sessions.metadata",
}
# What tools need, since workers have to send it; headers' values are in no answer, so in no answer that is kept.
COLUMNS: dict[Kind, set[str]] = {
    "text": TEXT_COLUMNS,
    "tool credential": {"agent_versions.definition", "idempotency_keys.body"},
    "tool header": {"agent_versions.definition"},
}

# Files of the data folder that hold secrets, each for its owner only, and whose they are.
HOMES = {
    "keys.json": {"api key", "admin key"},
    "secrets.json": {"pepper", "meter token"},
    "connections.json": {"database password", "meter token"},
    "nats/endpoint.json": {"NATS password"},
    "nats/nats.conf": {"NATS password"},
}
TOLD_AT_START = {"api key", "admin key"}  # `kgents up` prints them, once


class Place(NamedTuple):
    """Some content, and what must not be in it."""

    name: str
    content: bytes
    kinds: Iterable[Kind]
    homes: Iterable[str] = ()


@dataclass
class Record:
    """What was heard of a kgents while it ran. `places` are snapshots taken then."""

    answers: list[tuple[httpx2.Request, httpx2.Response]] = field(default_factory=list)
    traces: list[bytes] = field(default_factory=list)
    bus: list[tuple[str, bytes]] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)

    def heard(self) -> Iterator[Place]:
        """The places of what was heard."""
        yield from self.places
        for body in self.traces:
            yield Place("trace", body, EVERYTHING)
        for subject, payload in self.bus:
            yield Place(f"bus:{subject}", subject.encode() + b" " + payload, _of_subject(subject))
        for request, response in self.answers:
            yield _of_answer(request, response)


def _of_answer(request: httpx2.Request, response: httpx2.Response) -> Place:
    path = request.url.path
    head = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
    content = head.encode() + b"\n\n" + response.content
    if response.status_code >= 400:
        return Place(f"error:{request.method} {path} {response.status_code}", content, EVERYTHING)
    if path.endswith(("/api-keys", "/rotate")) and request.method == "POST":
        return Place(f"answer:{path}", head.encode(), SECRETS)  # a key is shown where it is made
    if path == "/v1/audit-log":
        return Place("audit log", content, EVERYTHING)
    if path.startswith("/v1/"):
        return Place(f"answer:{path}", content, ("secret", "tool header"))
    kind = "health" if path.startswith(("/health", "/readyz", "/livez")) else "page"
    return Place(f"{kind}:{path}", content, EVERYTHING)


def _of_subject(subject: str) -> tuple[Kind, ...]:
    return NO_TEXT if subject.startswith(("kgents.events.", "kgents.live.")) else EVERYTHING


def pages(system: System) -> Iterator[Place]:
    """What the ports for operators say now."""
    for name in ("metrics_url", "worker_metrics_url"):
        metrics = system.up.facts[name]
        yield Place("metrics", httpx2.get(metrics, trust_env=False, timeout=10).content, EVERYTHING)
        base = metrics.removesuffix("/metrics")
        for path in ("/health", "/health/saas", "/readyz?verbose", "/livez?verbose"):
            answer = httpx2.get(base + path, trust_env=False, timeout=10)
            yield Place(f"health:{path}", answer.content, EVERYTHING)


def command_lines(system: System) -> Iterator[Place]:
    """What every user of the machine can read of the processes."""
    for name in ("api", "worker", "meter", "nats"):
        yield Place("command line", Path(f"/proc/{system.up.pid(name)}/cmdline").read_bytes(), EVERYTHING)


def columns(system: System) -> Iterator[Place]:
    """Every column of every table."""
    for table, rows in _dump(system).items():
        for column in rows[0] if rows else ():
            name = f"{table}.{column}"
            content = "\n".join(str(row[column]) for row in rows).encode()
            kinds = [kind for kind in EVERYTHING if name not in COLUMNS.get(kind, ())]
            yield Place(f"column:{name}", content, kinds)


def _dump(system: System) -> dict[str, list[dict[str, Any]]]:
    tables = [*metadata.tables, "alembic_version"]
    if system.postgres is not None:
        # Row by row as text: what a dump would hold.
        found = system.postgres.sql([f"SELECT * FROM {table}" for table in tables], system.database)
        return {table: [dict(row) for row in rows] for table, rows in zip(tables, found, strict=True)}
    connection = sqlite3.connect(system.up.data / "kgents.db")
    connection.row_factory = sqlite3.Row
    try:
        return {table: [dict(row) for row in connection.execute(f"SELECT * FROM {table}")] for table in tables}
    finally:
        connection.close()


def files(system: System) -> Iterator[Place]:
    """Every file of the data folder, and of PostgreSQL. A home that others may read is no home."""
    data = system.up.data
    for path in sorted(data.rglob("*")):
        if not path.is_file():
            continue
        name = str(path.relative_to(data))
        private = not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        kind, kinds = _of_file(name)
        yield Place(f"{kind}:{name}", path.read_bytes(), kinds, HOMES.get(name, ()) if private else ())
    if system.postgres is not None:
        folder = system.postgres.folder
        yield Place("PostgreSQL log", (folder / "log").read_bytes(), EVERYTHING)
        for part in ("base", "pg_wal", "global"):
            for path in sorted((folder / "data" / part).rglob("*")):
                if path.is_file():
                    yield Place(f"database file:{part}/{path.name}", path.read_bytes(), SECRETS)


def _of_file(name: str) -> tuple[str, tuple[Kind, ...]]:
    if name.startswith("logs/"):
        return "log", EVERYTHING
    if name.startswith("kgents.db"):
        return "database file", SECRETS
    if name.startswith("meter.db"):
        return "meter file", EVERYTHING
    if name.startswith("nats/jetstream/"):
        return "JetStream file", NO_TEXT if "/KGENTS_EVENTS/" in name else EVERYTHING
    if name.startswith("nats/") and ".log" in name:
        return "NATS log", EVERYTHING
    return "other file", EVERYTHING


def search(canaries: Canaries, places: Iterable[Place]) -> tuple[list[Finding], dict[str, int]]:
    """What was found that must not be there, and how many bytes of each kind of place were searched."""
    findings: set[Finding] = set()
    searched: dict[str, int] = {}
    for place in places:
        kind = place.name.partition(":")[0]
        searched[kind] = searched.get(kind, 0) + len(place.content)
        findings.update(canaries.find(place.name, place.content, place.kinds, home_of=place.homes))
    return sorted(findings), searched
