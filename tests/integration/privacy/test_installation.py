"""A running kgents from which a tenant is erased: its texts are found in every store before, and in none
after, though the first try is killed.
"""

from __future__ import annotations

import re
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Database
from tests.support.cli import Cli
from tests.support.up import UNMEASURED, Up
from tests.support.waiting import wait_until

MARK = re.compile(rb"canary-[a-z]+-[a-z-]+")
MONTHS = ("--from", "2026-01-01", "--to", "2100-01-01", "--window", "month")


class Installation:
    """A kgents with its files and tables."""

    def __init__(self, up: Up, database: Database, server: Any, cli: Cli) -> None:
        self.up = up
        self.cli = cli
        self._server = server
        self._tenants: list[Tenant] = []
        self._running = True
        self._name = database.url.rpartition("/")[2]

    def tenant(self, name: str) -> Tenant:
        """A new tenant, which has written a canary wherever it can."""
        self._tenants.append(Tenant(self.up, name))
        return self._tenants[-1]

    def stop(self) -> None:
        """End it, and what was connected to it."""
        if self._running:
            self._running = False
            for tenant in self._tenants:
                tenant.client.close()
            self.up.stop()

    def tables(self) -> dict[str, bytes]:
        """The rows of every table that there is, as text."""
        if self._server is None:
            connection = sqlite3.connect(self.up.data / "kgents.db")
            try:
                names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                return {name: repr(connection.execute(f"SELECT * FROM {name}").fetchall()).encode() for name in names}
            finally:
                connection.close()
        (listed,) = self._server.sql(["SELECT tablename FROM pg_tables WHERE schemaname = 'public'"], self._name)
        names = [row["tablename"] for row in listed]
        found = self._server.sql(
            [f"SELECT convert_to(t::text, 'UTF8') AS row FROM {name} t" for name in names], self._name
        )
        return {name: b"\n".join(row["row"] for row in rows) for name, rows in zip(names, found, strict=True)}

    def files(self) -> dict[str, bytes]:
        """Every file of the data folder: JetStream's, the meter's, SQLite's, logs. And PostgreSQL's log."""
        found = {str(path.relative_to(self.up.data)): path for path in self.up.data.rglob("*") if path.is_file()}
        if self._server is not None:
            found["PostgreSQL's log"] = self._server.folder / "log"
        return {name: path.read_bytes() for name, path in found.items() if path.exists()}

    def marks(self, of: str) -> dict[str, set[str]]:
        """The canaries of a tenant, each with the places where it stands."""
        found: dict[str, set[str]] = {}
        for place, content in {**self.tables(), **self.files()}.items():
            for mark in MARK.findall(content):
                chosen = mark.endswith(b"-request") and place.startswith("logs/")  # see docs/operations/tenants.md
                if mark.startswith(f"canary-{of}-".encode()) and not chosen:
                    found.setdefault(mark.decode(), set()).add(place)
        return found

    def used(self, tenant: str) -> dict[str, int]:
        """What the meter has counted for a tenant, once everything is there."""
        self.up.settled(60)
        return self.up.metered(tenant)


@pytest.fixture
def installation(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Iterator[Installation]:
    environment = UNMEASURED | {"KGENTS_EGRESS_ALLOW": '["127.0.0.0/8"]'}
    server, owner = None, {}
    if database.dialect == "postgresql":
        server = request.getfixturevalue("postgres")
        owner = {"KGENTS_DATABASE_OWNER_URL": database.owner_url}
        environment |= {"KGENTS_DATABASE_URL": database.url, **owner}
    up = Up(tmp_path / "data", environment=environment).start()
    made = Installation(up, database, server, Cli(tmp_path, KGENTS_DATA_DIR=str(up.data), **owner))
    yield made
    made.stop()


class Tenant:
    """A tenant that has written a canary wherever it can."""

    def __init__(self, up: Up, name: str) -> None:
        self.name = f"canary-{name}-tenant"
        self._word = f"canary-{name}-"
        with up.admin() as admin:
            named = {"Idempotency-Key": f"{self._word}made"}
            self.id = admin.post("/v1/tenants", json={"name": self.name}, headers=named).json()["id"]
            body, named = {"name": f"{self._word}key", "role": "owner"}, {"Idempotency-Key": f"{self._word}key-made"}
            self.token = admin.post(f"/v1/tenants/{self.id}/api-keys", json=body, headers=named).json()["token"]
        self.client = up.client(self.token)
        self._fill()

    def _fill(self) -> None:
        word, post = self._word, self._post
        tool = {
            "type": "mcp",
            "name": "away",
            "url": f"https://127.0.0.1:9/{word}url",
            "headers": {"X-Secret": f"{word}header"},
        }
        post(
            "/v1/agents",
            {
                "name": f"{word}agent",
                "model": "kgents:echo",
                "instructions": f"{word}instructions",
                "description": f"{word}description",
                "output_schema": {"type": "object", "description": f"{word}schema"},
                "tools": [tool],
            },
            **{"Idempotency-Key": f"{word}idempotency", "X-Request-Id": f"{word}request"},
        )
        post(
            "/v1/agents", {"name": "echo", "model": "kgents:echo", "tools": [{"type": "builtin", "name": "calculator"}]}
        )
        session = post("/v1/sessions", {"agent": "echo", "metadata": {f"{word}field": f"{word}metadata"}})["id"]
        runs = f"/v1/sessions/{session}/runs"
        post(runs, {"input": f"{word}message"})
        post(runs, {"input": f'/call calculator {{"expression": "{word}argument"}}'})
        self.client.post(runs, json={"input": f"{word}streamed", "mode": "stream"}).read()
        said = {"model": "echo", "input": f"{word}response"}
        post("/v1/responses", said, **{"Idempotency-Key": f"{word}again"})
        self.client.patch(f"/v1/agents/{word}agent", json={"name": f"{word}renamed", "description": f"{word}later"})
        self.client.delete(f"/v1/agents/{word}renamed")

    def _post(self, path: str, body: dict[str, Any], **headers: str) -> Any:
        answer = self.client.post(path, json=body, headers=headers)
        assert answer.is_success, answer.text
        return answer.json()

    def sleep(self) -> None:
        """Have a run under way."""
        session = self._post("/v1/sessions", {"agent": "echo"})["id"]
        run = self._post(f"/v1/sessions/{session}/runs", {"input": "/sleep 60 a b", "mode": "background"})["id"]
        wait_until(lambda: self.client.get(f"/v1/runs/{run}").json()["status"] == "running", seconds=30, what="it runs")


PLANTED = {
    *("tenant", "key", "url", "header", "agent", "instructions", "description", "schema", "idempotency", "request"),
    *("field", "metadata", "message", "argument", "streamed", "response", "again", "renamed", "later"),
    *("made", "key-made"),
}


def killed_at(cli: Cli, line: str, *arguments: str) -> str:
    """Run a command and kill it once it says `line`; answers what it said."""
    with cli.start(*arguments) as process:
        assert process.stderr is not None
        said = ""
        while line not in said:
            more = process.stderr.readline().decode()
            assert more, said
            said += more
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return said


def test_no_text_of_an_erased_tenant_is_in_any_store(installation: Installation) -> None:
    cli = installation.cli
    gone, other = installation.tenant("gone"), installation.tenant("other")
    gone.sleep()
    for name in ("gone", "other"):
        planted = {f"canary-{name}-{where}" for where in PLANTED}
        wait_until(
            lambda p=planted, n=name: p <= set(installation.marks(n)), what="every canary is where it was planted"
        )
    stores = {place for places in installation.marks("gone").values() for place in places}
    assert any("KGENTS_EVENTS" in place for place in stores), stores
    others = installation.used(other.id)
    said = killed_at(cli, "runs, ", "tenant", "erase", gone.id, "--yes-erase", gone.name)
    assert "that were cancelled" in said
    assert gone.client.get("/v1/agents").status_code == 401
    done = cli("tenant", "erase", "--again")
    assert done.status == 0, done
    assert installation.marks("gone") == {}
    assert set(installation.marks("other")) >= {f"canary-other-{where}" for where in PLANTED}
    assert installation.used(other.id) == others
    assert installation.used(gone.id)["runs"] >= 4
    done = cli("usage", "reconcile", *MONTHS)
    assert done.status == 0, done
    assert other.client.get("/v1/sessions").is_success
    installation.stop()
    assert not [name for name, content in installation.files().items() if name[:5] != "logs/" and b"-gone-" in content]
