"""A kgents on a database of either kind, which a test may break as it likes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom

import httpx2

from kgents.store.migrate import migrate
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer, serve_postgres
from tests.support.proxy import FaultyProxy
from tests.support.reached import trust
from tests.support.up import UNMEASURED, Up
from tests.support.waiting import wait_until

FULL = bool(os.environ.get("KGENTS_FULL"))
"""Whether the full counts are asked for (`make faults`)."""


def new_seed() -> int:
    """The seed of a test: KGENTS_SEED where it is set, to run a failed one again. It is printed, for that."""
    seed = int(os.environ.get("KGENTS_SEED") or SystemRandom().randrange(2**31))
    print(f"KGENTS_SEED={seed}")
    return seed


@dataclass(frozen=True, slots=True)
class System:
    """A running kgents, and its PostgreSQL where it has one."""

    up: Up
    environment: dict[str, str] = field(repr=False)
    postgres: PostgresServer | None = None
    database: str = ""
    """The name of its database in PostgreSQL."""
    links: Mapping[str, FaultyProxy] = field(default_factory=dict)
    """What its processes reach the others through, where that was asked for: `api-nats`, `worker-database`..."""


@contextmanager
def running(
    dialect: str,
    data: Path,
    *,
    control: str = "",
    points: Path | None = None,
    durable_in: Path | None = None,
    module: str = "kgents.cli.main",
    proxied: bool = False,
    **more: str,
) -> Iterator[System]:
    """A kgents on a database of its own; with a negative control, and with crash points, where they are given; `more`
    is further environment, and `module` what Python runs instead of the command.

    `durable_in` is where PostgreSQL's folder is made, with its own settings for what a power cut leaves. Where it is
    `proxied`, the API and the worker reach NATS and PostgreSQL through a link each.
    """
    environment = UNMEASURED | more
    if control or points or proxied:
        module = "tests.faults.crashing"
        environment |= {"CONTROL": control, "CRASH_POINTS": str(points or "")}
    with ExitStack() as stack:
        server, name = None, ""
        if dialect == "postgresql":
            server = stack.enter_context(serve_postgres(migrate, durable=durable_in is not None, parent=durable_in))
            name = server.create_database()
            environment |= server.environment(name)
        links = stack.enter_context(_links(data, environment, server)) if proxied else {}
        up = Up(data, environment=environment, module=module).start()
        stack.callback(stop, up)
        yield System(up, environment, server, name, links)


@contextmanager
def _links(data: Path, environment: dict[str, str], server: PostgresServer | None) -> Iterator[dict[str, FaultyProxy]]:
    """Links for the API and for the worker, in the settings that each of them gets; see crashing.py."""
    port = free_port()
    (data / "nats").mkdir(parents=True)
    (data / "nats" / "endpoint.json").write_text(json.dumps({"port": port, "monitor_port": free_port()}))
    links: dict[str, FaultyProxy] = {}
    own: dict[str, dict[str, str]] = {}
    with ExitStack() as stack:
        for process in ("api", "worker"):
            for name, target in [("nats", port)] + ([("database", server.port)] if server else []):
                links[f"{process}-{name}"] = FaultyProxy(target)
                stack.callback(links[f"{process}-{name}"].close)
            own[process] = {"nats_url": f"nats://127.0.0.1:{links[f'{process}-nats'].port}"}
            if server:
                url = environment["KGENTS_DATABASE_URL"]
                own[process]["database_url"] = url.replace(f":{server.port}/", f":{links[f'{process}-database'].port}/")
        environment["OWN_SETTINGS"] = json.dumps(own)
        yield links


def stop(up: Up) -> None:
    """End it, whatever state it is in."""
    with contextlib.suppress(AssertionError, ProcessLookupError):
        up.stop()


@contextmanager
def another_api(system: System, *, control: str = "") -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A second API process of a running kgents: its URL, and the process."""
    data = system.up.data
    connections, secrets, nats = (
        json.loads((data / name).read_text()) for name in ("connections.json", "secrets.json", "nats/endpoint.json")
    )
    port = free_port()
    environment = {
        "KGENTS_DATABASE_URL": connections["database_url"],
        "KGENTS_PEPPER": secrets["pepper"],
        "KGENTS_NATS_URL": f"nats://127.0.0.1:{nats['port']}",
        "KGENTS_NATS_USER": nats["user"],
        "KGENTS_NATS_PASSWORD": nats["password"],
        "KGENTS_METER_URL": connections["meter_url"],
        "KGENTS_METER_TOKEN": connections["meter_token"],
        "KGENTS_PORT": str(port),
        "KGENTS_METRICS_PORT": str(free_port()),
        "KGENTS_PROCESS_NAME": "api-2",
        "CONTROL": control,
        "CRASH_POINTS": "",
        **UNMEASURED,
    }
    module = "tests.faults.crashing" if control else "kgents.cli.main"
    with (data / "logs" / "api-2.jsonl").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "serve", "api"], env=os.environ | environment, stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(url), seconds=30, what="the second API answers")
        yield url, process
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz", trust_env=False, verify=trust()).is_success
    except httpx2.HTTPError:
        return False
