"""The restore drill: the bus loses its data, a copy brings every message back, and usage agrees to the last unit."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nats
import pytest

from bench.machine import facts
from kgents.bus.streams import USAGE_STREAM
from tests.cluster.installation import NAMESPACE, Cluster, Installation
from tests.cluster.steady import Steady, told
from tests.faults.checker import check
from tests.support.documents import blocks
from tests.support.tenants import tenant_of
from tests.support.waiting import wait_until

DOCUMENT = "docs/operations/backup.md"
RATE, REQUESTS = 10.0, 60
SECONDS = 120


async def _ask(installation: Installation, subject: str) -> dict[str, Any]:
    client = await nats.connect(
        f"nats://{installation.address('kgents-nats')}:4222",
        user="backup",
        password=installation.secret("kgents-nats-secrets", "backup"),
    )
    try:
        answer = await client.request(f"$JS.API.{subject}", b"", timeout=10)
    finally:
        await client.close()
    found: dict[str, Any] = json.loads(answer.data)
    assert "error" not in found, found
    return found


def stream(installation: Installation) -> dict[str, Any]:
    """The stream of usage, as the bus tells of it."""
    return asyncio.run(_ask(installation, f"STREAM.INFO.{USAGE_STREAM}"))


def messages(installation: Installation) -> int:
    """How many messages of usage the bus holds."""
    return int(stream(installation)["state"]["messages"])


def test_usage_is_kept_in_files_of_three_servers(installation: Installation) -> None:
    kept = stream(installation)["config"]
    assert (kept["num_replicas"], kept["storage"]) == (3, "file")


@contextmanager
def without_the_meter(cluster: Cluster) -> Iterator[None]:
    """The meter is away, so that usage waits on the bus."""
    try:
        cluster.kubectl("scale", "statefulset/kgents-meter", f"-n{NAMESPACE}", "--replicas=0")
        cluster.kubectl("wait", "pod/kgents-meter-0", f"-n{NAMESPACE}", "--for=delete", f"--timeout={SECONDS}s")
        yield
    finally:
        cluster.kubectl("scale", "statefulset/kgents-meter", f"-n{NAMESPACE}", "--replicas=1")


@pytest.fixture
def history(tmp_path: Path) -> Path:
    return tmp_path / "history"


def sql(installation: Installation, statement: str, *, database: str = "$POSTGRES_DB") -> str:
    """What the database answers to its owner."""
    command = (
        f"PGPASSWORD=$POSTGRES_PASSWORD psql --host=127.0.0.1 --username=$POSTGRES_USER --dbname={database} "
        f"--no-align --tuples-only --command='{statement}'"
    )
    return installation.cluster.kubectl("exec", f"-n{NAMESPACE}", "kgents-postgres-0", "--", "bash", "-euc", command)


def test_what_was_lost_is_brought_back(installation: Installation, history: Path) -> None:
    """The bus loses a stream and the database its ledger, while usage is on its way to the meter."""
    small = "## PostgreSQL: the component `postgres`"
    daily, stop, bring_back = blocks(DOCUMENT, "sh", small)
    with tenant_of(installation) as tenant:
        assert installation.typed(daily).returncode == 0
        with without_the_meter(installation.cluster):
            with Steady(installation.url, tenant.key, history, rate=RATE) as load:
                wait_until(lambda: load.sent >= REQUESTS, seconds=60)
            assert not load.failed, told(load.failed)
            wait_until(lambda: installation.health()["components"]["sql"]["backlog"] == 0, seconds=30)
            waiting = messages(installation)
            assert waiting > 0
            back_up, restore = blocks(DOCUMENT, "sh", "## The bus")
            assert f"copied {USAGE_STREAM}: {waiting} messages" in typed(installation, back_up)
            moment = sql(installation, "SELECT now()").strip()
            asyncio.run(_ask(installation, f"STREAM.PURGE.{USAGE_STREAM}"))
            sql(installation, "TRUNCATE usage_events")
            assert messages(installation) == 0
            typed(installation, stop, MOMENT=moment)
            assert "taking /archive/base/" in typed(installation, bring_back, MOMENT=moment)
            assert f"restored {USAGE_STREAM}: {waiting} messages" in typed(installation, restore)
            restored = messages(installation)
            assert restored == waiting
        verdict = check(installation, tenant.http, history)
    assert not verdict.broken, str(verdict)
    installation.follow(DOCUMENT, "## Whether it all agrees")
    today, day = datetime.now(UTC).date(), timedelta(days=1)
    reconciled = installation.cluster.kubectl(
        *("exec", f"-n{NAMESPACE}", "deployment/kgents-api", "--", "/opt/kgents/bin/kgents"),
        *("usage", "reconcile", f"--from={today - day}", f"--to={today + day}", "--output=json"),
    )
    differences = json.loads(reconciled)
    if path := os.environ.get("KGENTS_RESTORE"):
        figures = {"messages_before": waiting, "messages_after": restored, "differences": len(differences)}
        Path(path).write_text(json.dumps({**facts(), **figures}, indent=1) + "\n")
    assert differences == []


def typed(installation: Installation, block: str, **environment: str) -> str:
    """What a block of the document prints; it has to succeed."""
    done = installation.typed(block, **environment)
    assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
    return done.stdout
