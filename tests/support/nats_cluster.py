"""One or several nats-servers with JetStream that keep its streams together."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from pydantic import SecretStr

from kgents.bus.monitor import healthy
from kgents.bus.server import find_binary
from kgents.config import Settings
from tests.support.ports import free_port
from tests.support.process import ServerProcess

_CONFIG = """\
server_name: n{index}
listen: "127.0.0.1:{client}"
http: "127.0.0.1:{monitor}"
authorization {{ user: kgents, password: secret }}
jetstream {{ store_dir: "{store}", sync_interval: {sync}, max_file_store: 2GB }}
"""
_ROUTES = 'cluster {{ name: test, listen: "127.0.0.1:{route}", routes: [{routes}] }}\n'


class NatsCluster:
    """So many servers on loopback. They keep their ports and their files over a restart.

    `stores` is where they keep what they acknowledge; `sync` is when they put it on the disk ("2m" is nats-server's own
    default).
    """

    def __init__(self, folder: Path, *, servers: int = 3, stores: Path | None = None, sync: str = "always") -> None:
        self._folder = folder
        self._stores = stores or folder
        self._sync = sync
        self._ports = [(free_port(), free_port(), free_port()) for _ in range(servers)]
        self.urls = [f"nats://127.0.0.1:{client}" for client, _, _ in self._ports]
        self._monitors = [f"http://127.0.0.1:{monitor}" for _, monitor, _ in self._ports]
        self.processes: dict[str, ServerProcess] = {}

    def start(self) -> None:
        """Start all of them; see `healthy`."""
        for index, (client, monitor, route) in enumerate(self._ports):
            config = self._folder / f"n{index}.conf"
            text = _CONFIG.format(
                index=index, client=client, monitor=monitor, store=self._stores / f"n{index}", sync=self._sync
            )
            if len(self._ports) > 1:
                routes = ", ".join(f'"nats://127.0.0.1:{port}"' for _, _, port in self._ports)
                text += _ROUTES.format(route=route, routes=routes)
            config.write_text(text)
            log = self._folder / f"n{index}.log"
            self.processes[f"n{index}"] = ServerProcess([find_binary(), "-c", config], log)

    async def healthy(self) -> bool:
        """Whether each of them serves, and has caught up with the others."""
        return all([await asyncio.to_thread(healthy, url) for url in self._monitors])

    def stop(self) -> None:
        """Kill all of them."""
        for process in self.processes.values():
            process.stop(signal.SIGKILL)

    def settings(self) -> Settings:
        """The settings of a kgents that uses them."""
        return Settings(
            nats_url=",".join(self.urls),
            nats_user="kgents",
            nats_password=SecretStr("secret"),
            nats_replicas=len(self.urls),
        )
