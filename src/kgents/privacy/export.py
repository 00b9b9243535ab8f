"""Writing out everything that a tenant has, as JSON Lines: docs/operations/tenants.md describes the format."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tarfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import orjson
from nats.aio.client import Client
from sqlalchemy import Table

from kgents.agents.events import load_events
from kgents.agents.model import without_secrets
from kgents.bus.stored_events import events_of, runs_with_events
from kgents.clock import Clock, to_rfc3339
from kgents.errors import Conflict, Unavailable
from kgents.privacy import repository
from kgents.privacy.repository import EXPORT, Row
from kgents.store.engine import Scope, Store
from kgents.store.tables import (
    agent_versions,
    agents,
    api_keys,
    audit_log,
    balances,
    invoices,
    messages,
    quotas,
    run_steps,
    runs,
    sessions,
    subscriptions,
    tenants,
    usage_events,
)
from kgents.tenants.service import no_tenant

FORMAT, VERSION = "kgents-tenant-export", 1
PAGE = 500
PARENTS = 50  # runs, or agents, whose rows are read at once: a run may have megabytes of messages
CHUNK = 500  # runs that are looked up at once

_JSON = {"scopes", "metadata", "message", "input", "output", "error", "detail", "terms", "lines"}
_SECRET = {"hash", "pepper_version"}
# What kgents keeps for itself: which process has a run, what is reserved for it, and what may still be metered of it.
_INTERNAL = {
    "owner",
    "traceparent",
    "cut_off",
    *(column.name for column in runs.c if column.name.endswith("_reserved")),
}
_LEFT_OUT = {"api_keys": _SECRET, "runs": _INTERNAL}


@dataclass(frozen=True, slots=True)
class _Kind:
    """A file of the export: a table, the columns that order a tenant's rows, and the tables of what each row has."""

    table: Table
    key: tuple[str, ...]
    children: tuple[Table, ...] = ()


# Ordered so that the tenant's rows are found by an index: those of a run, or an agent, go by its id.
_KINDS = (
    _Kind(tenants, ("tenant_id",), (quotas,)),
    _Kind(api_keys, ("key_id",)),
    _Kind(agents, ("agent_id",), (agent_versions,)),
    _Kind(sessions, ("session_id",)),
    _Kind(runs, ("run_id",), (run_steps, messages)),
    _Kind(usage_events, ("occurred_at", "event_id")),
    _Kind(balances, ("tenant_id", "period")),
    _Kind(subscriptions, ("subscription_id",)),
    _Kind(invoices, ("invoice_id",)),
    _Kind(audit_log, ("audit_id",)),
)


@dataclass(frozen=True, slots=True)
class Exported:
    """An export that is whole: where it is, and how many objects each of its files has."""

    path: Path
    counts: dict[str, int]


class _File:
    """A file of JSON Lines that is being written: it counts, and sums."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = f"{name}.jsonl"
        self.count = 0
        self._sum = hashlib.sha256()
        self._file: IO[bytes] = (folder / self.name).open("wb")

    def add(self, documents: Sequence[Any]) -> None:
        for document in documents:
            line = orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
            self._sum.update(line)
            self._file.write(line)
        self.count += len(documents)

    def close(self) -> dict[str, Any]:
        """Have it on the disk; answers what the manifest says of it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return {"name": self.name, "count": self.count, "sha256": self._sum.hexdigest()}


async def export(
    store: Store,
    bus: Client,
    tenant_id: str,
    target: Path,
    *,
    operator: str,
    clock: Clock,
    tell: Callable[[str], None],
) -> Exported:
    """Write everything that a tenant has into the folder `target`, or into one file where its name ends with .tar.gz.
    It must not be there yet, and is there once it is whole. Memory does not grow with the tenant. That `operator`
    exports it is in the platform's audit log before anything of it is read.

    Raises NotFound, Conflict for a target that is there, Unavailable.
    """
    if await store.read(Scope.tenant(tenant_id), partial(repository.name_of, tenant_id=tenant_id)) is None:
        raise no_tenant(tenant_id)
    unfinished = _begin(target)
    try:
        begun = partial(
            repository.record, action=EXPORT, tenant_id=tenant_id, operator=operator, detail={}, now=clock.now()
        )
        await store.write(Scope.system(), begun)
        files = [described async for described in _write(store, bus, tenant_id, unfinished, tell)]
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "tenant_id": tenant_id,
            "created_at": to_rfc3339(clock.now()),
            "files": files,
        }
        (unfinished / "manifest.json").write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
        await asyncio.to_thread(_finish, unfinished, target)
    except OSError as error:
        raise Unavailable(
            f"The export can't be written to {target}: {error.strerror}. Make room, or choose another place.",
            code="export-not-written",
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Exported(target, {described["name"]: described["count"] for described in files})


def _begin(target: Path) -> Path:
    if target.exists():
        raise Conflict(f"{target} is there already. Give a new name: an export is never changed.", code="export-exists")
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise Unavailable(f"{target} can't be written: {error.strerror}.", code="export-not-written") from error
    return unfinished


def _finish(unfinished: Path, target: Path) -> None:
    if not target.name.endswith(".tar.gz"):
        unfinished.rename(target)
        return
    packed = unfinished / "packed"
    packed.touch(0o600)
    with packed.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for path in sorted(unfinished.glob("*.json*")):
                archive.add(path, path.name, filter=_nobodys)
        file.flush()
        os.fsync(file.fileno())
    packed.rename(target)


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""  # who exports is nobody's business
    return member


async def _write(
    store: Store, bus: Client, tenant_id: str, folder: Path, tell: Callable[[str], None]
) -> AsyncIterator[dict[str, Any]]:
    for kind in _KINDS:
        tables = (kind.table, *kind.children)
        files = {table.name: _File(folder, table.name) for table in tables}
        async for rows in _pages(store, kind, tenant_id):
            for table, part in zip(tables, rows, strict=True):
                files[table.name].add([_document(table, row) for row in part])
        for file in files.values():
            tell(f"{file.name}: {file.count}")
            yield file.close()
    events = _File(folder, "run_events")
    async for documents in _events(store, bus, tenant_id):
        events.add(documents)
    tell(f"{events.name}: {events.count}")
    yield events.close()


async def _pages(store: Store, kind: _Kind, tenant_id: str) -> AsyncIterator[list[list[Row]]]:
    """The rows of a kind, and of its children, page by page."""
    parent, after = kind.key[0], Row()
    limit = PARENTS if kind.children else PAGE
    while True:
        page = partial(repository.page, table=kind.table, tenant_id=tenant_id, key=kind.key, after=after, limit=limit)
        rows = await store.read(Scope.tenant(tenant_id), page)
        if not rows:
            return
        ids = [row[parent] for row in rows]
        children = [
            await store.read(
                Scope.tenant(tenant_id),
                partial(repository.children, table=table, tenant_id=tenant_id, parent=parent, ids=ids),
            )
            for table in kind.children
        ]
        yield [rows, *children]
        after = rows[-1]


async def _events(store: Store, bus: Client, tenant_id: str) -> AsyncIterator[list[dict[str, Any]]]:
    """The run events that the bus still has, which is those of the last day, a message at a time."""
    async for found in runs_with_events(bus):
        for start in range(0, len(found), CHUNK):
            owned = partial(repository.owned_runs, tenant_id=tenant_id, run_ids=found[start : start + CHUNK])
            for run_id in await store.read(Scope.tenant(tenant_id), owned):
                async for _, payload in events_of(bus, run_id):
                    yield [
                        {"run_id": run_id, "sequence": event.sequence, "type": event.type, "data": event.data}
                        for event in load_events(payload)
                    ]


def _document(table: Table, row: Row) -> dict[str, Any]:
    """A row as the export shows it: times in RFC 3339, JSON as JSON, without what is secret or kgents' own."""
    left_out = _LEFT_OUT.get(table.name, ())
    return {str(name): _value(name, value) for name, value in row.items() if name not in left_out}


def _value(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name.endswith("_at"):
        return to_rfc3339(value)
    if name == "definition":
        definition = orjson.loads(value)
        return {**definition, "tools": [without_secrets(tool) for tool in definition["tools"]]}
    if name in _JSON:
        return orjson.loads(value)
    return bool(value) if name == "estimated" else value
