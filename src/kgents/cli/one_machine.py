"""Everything on one machine: the bus, the meter, a worker and the API as processes of one supervisor."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Connection

from kgents import app, config
from kgents.agents import service
from kgents.agents.model import AgentDefinition
from kgents.bus.server import LocalNats
from kgents.cli.log_file import open_append, rotated
from kgents.cli.supervisor import Forked, Supervisor, call_in_child
from kgents.cli.up import CannotStart, DataFolder, listen
from kgents.clock import SystemClock
from kgents.config import Settings
from kgents.errors import NotFound
from kgents.store import migrate
from kgents.store.engine import Scope, open_store
from kgents.telemetry import logs
from kgents.tenants import keys
from kgents.tenants.model import OWNER, PLATFORM_ADMIN, SYSTEM
from kgents.tenants.service import KeyService, TenantService

READY_TIMEOUT = 30.0
FIRST_TENANT = "default"
FIRST_AGENT = "echo"


@dataclass(slots=True)
class _Nats:
    """The nats-server as a child of the supervisor."""

    local: LocalNats
    name: str = "nats"

    def start(self) -> int:
        process: subprocess.Popen[bytes] = self.local.spawn()
        return process.pid

    def on_exit(self, status: int) -> None:
        """Nothing to do: its files are its own."""

    def is_well(self) -> bool:
        # A full disk stops its streams until it is started again, also once there is room.
        return self.local.healthy()


class OneMachine:
    """The processes of `kgents up` over one data folder."""

    def __init__(self, folder: DataFolder, host: str, listener: socket.socket) -> None:
        self._folder = folder
        self._host = host
        self._listener = listener
        self._supervisor = Supervisor(stop_grace=30.0, started=self._keep_pids)
        self._nats = LocalNats(folder.path)
        self._listeners = {name: listen("127.0.0.1", 0) for name in ("api", "worker", "meter")}
        self._ports = {name: held.getsockname()[1] for name, held in self._listeners.items()}
        self._keys: dict[str, str] = {}

    def start(self) -> dict[str, Any]:
        """Start everything; answers what a user or a script needs to know once the API answers.

        Raises CannotStart, and what migrating raises for a data folder of a newer version.
        """
        own = self._folder.log_file("up")
        logs.configure("info", "up", stream=rotated(own, open_append(own)))
        endpoint = self._nats.prepare()
        base = self._settings(endpoint)
        connections = {
            "database_url": base.database_url,
            "meter_url": base.meter_url,
            "meter_token": base.meter_token.get_secret_value(),
            "url": self._url(),
            **{f"{name}_metrics_url": self._metrics_url(name) for name in ("api", "worker")},
        }
        self._folder.keep(self._folder.path / "connections.json", connections)
        self._supervisor.start(_Nats(self._nats))
        self._keys = call_in_child(lambda: self._prepare(base))
        children = [self._meter(base), self._worker(base), self._api(base)]
        for child in children:
            self._supervisor.start(child)
        self._nats.ready(READY_TIMEOUT)
        deadline = time.monotonic() + READY_TIMEOUT
        for child in children:
            if not child.wait_ready(deadline):
                raise CannotStart(f"The process {child.name!r} did not start. Its log, {child.log_file}, says why.")
        self._supervisor.heed_signals()
        return self._facts()

    def run(self) -> None:
        """Keep everything running until SIGINT or SIGTERM."""
        self._supervisor.run()

    def stop(self) -> None:
        """Stop what runs: API first, bus last."""
        self._supervisor.stop()

    def _keep_pids(self, pids: dict[str, int]) -> None:
        self._folder.keep(self._folder.path / "pids.json", {name: str(pid) for name, pid in pids.items()})

    def _facts(self) -> dict[str, Any]:
        url = self._url()
        return {
            "url": url,
            "api_key": self._keys["api_key"],
            "admin_key": self._keys["admin_key"],
            "metrics_url": self._metrics_url("api"),
            "worker_metrics_url": self._metrics_url("worker"),
            "meter_url": f"http://127.0.0.1:{self._ports['meter']}",
            "console_url": f"{url}/console",
            "data": str(self._folder.path),
            "pids": {"up": os.getpid(), **self._supervisor.pids()},
        }

    def _url(self) -> str:
        host, port = self._listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"http://{'127.0.0.1' if host == '0.0.0.0' else shown}:{port}"  # noqa: S104 - compared, not bound

    def _metrics_url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._ports[name]}/metrics"

    def _settings(self, endpoint: Any) -> Settings:
        secrets = self._folder.secrets()
        given = config.load()
        return given.model_copy(
            update={
                "data_dir": self._folder.path,
                "host": self._host,
                "database_url": given.database_url or f"sqlite:///{self._folder.path / 'kgents.db'}",
                "pepper": SecretStr(secrets["pepper"]),
                "nats_url": endpoint.url,
                "nats_user": endpoint.user,
                "nats_password": SecretStr(endpoint.password),
                "nats_monitor_url": endpoint.monitor_url,
                "nats_mode": "embedded",
                "meter_url": f"http://127.0.0.1:{self._ports['meter']}",
                "meter_token": SecretStr(secrets["meter_token"]),
                "meter_mode": "embedded",
            }
        )

    def _api(self, base: Settings) -> Forked:
        settings = base.model_copy(update={"metrics_port": self._ports["api"], "process_name": "api"})
        return self._forked("api", lambda ready: app.run_api(settings, ready, self._listener, self._listeners["api"]))

    def _worker(self, base: Settings) -> Forked:
        settings = base.model_copy(
            update={"host": "127.0.0.1", "metrics_port": self._ports["worker"], "process_name": "worker"}
        )
        return self._forked("worker", lambda ready: app.run_worker(settings, ready, self._listeners["worker"]))

    def _meter(self, base: Settings) -> Forked:
        settings = base.model_copy(update={"host": "127.0.0.1", "port": self._ports["meter"], "process_name": "meter"})
        return self._forked("meter", lambda ready: app.run_meter(settings, ready, self._listeners["meter"]))

    def _forked(self, name: str, main: Any) -> Forked:
        return Forked(name, main, self._folder.log_file(name))

    def _prepare(self, settings: Settings) -> dict[str, str]:
        """Bring the database to this version, and see that there are a first tenant, its agent and its key, and a
        platform administrator's key: made once, kept with the folder's secrets.
        """
        migrate.migrate(settings.database_owner_url or settings.database_url)
        path = self._folder.path / "keys.json"
        kept = self._folder.read(path)
        if kept is not None:
            return kept
        # A crash before they are kept leaves keys that nobody has; the next start makes new ones.
        made = asyncio.run(_first_keys(settings))
        self._folder.keep(path, made)
        return made


async def _first_keys(settings: Settings) -> dict[str, str]:
    clock = SystemClock()
    issue = KeyService(clock, keys.parse_peppers(settings.pepper.get_secret_value()))
    store = open_store(settings.database_url)

    def unit(connection: Connection) -> dict[str, str]:
        tenants = TenantService(clock)
        platform = tenants.ensure_platform(connection, SYSTEM).tenant_id
        tenant = tenants.ensure(connection, FIRST_TENANT, SYSTEM).tenant_id
        try:
            service.get_agent(connection, tenant, FIRST_AGENT)
        except NotFound:
            definition = AgentDefinition(model="kgents:echo", description="Says what you say.")
            service.create_agent(connection, tenant, FIRST_AGENT, definition, clock.now())
        administrator = OWNER | {PLATFORM_ADMIN}
        first = issue.create(connection, tenant, name="first", role="owner", granting=OWNER, actor=SYSTEM)
        admin = issue.create(
            connection, platform, name="first", scopes=administrator, granting=administrator, actor=SYSTEM
        )
        return {"api_key": first.token, "admin_key": admin.token}

    try:
        return await store.write(Scope.system(), unit)
    finally:
        await store.close()
