"""A real nginx as a gateway: a plain reverse proxy with the settings that the manifests give Kong.

Kong itself, which is built on nginx, can't be had where these tests run.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.support.ports import free_port
from tests.support.process import ServerProcess
from tests.support.waiting import wait_until

COMPONENTS = Path(__file__).parents[2] / "deploy" / "components"
_CONFIG = """\
daemon off;
user {user};
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  limit_req_zone $binary_remote_addr zone=edge:1m rate={rate}r/s;
  limit_req_status {refused};
  map $http_{header_variable} $correlation_id {{ default $http_{header_variable}; "" $request_id; }}
  upstream api {{ least_conn; {upstreams} keepalive 32; }}
  {plain}
  server {{
    listen {listen};
    {secured}
    client_max_body_size {body};
    location / {{
      limit_req zone=edge burst={rate} nodelay;
      proxy_pass http://api;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;  # which Kong does unasked
      proxy_set_header {header} $correlation_id;
      proxy_buffering {buffering};
      {gathered}
      proxy_connect_timeout {connect}ms;
      proxy_read_timeout {read}ms;
      proxy_send_timeout {write}ms;
      proxy_next_upstream off;
    }}
  }}
}}
"""
_SECURED = """\
ssl_certificate {folder}/tls.crt;
    ssl_certificate_key {folder}/tls.key;
    add_header {strict} always;
"""
_PLAIN = """\
server {{
    listen {host}:80;
    return {status} {scheme}://$host$request_uri;
  }}
"""
_GATHERING = """\
proxy_ignore_headers X-Accel-Buffering;
      gzip on;  # which waits for more, unless it is told to pass on what it has
      gzip_types text/event-stream;
      gzip_min_length 1;
"""


def find_binary() -> str | None:
    """nginx, or None where it is not installed."""
    return shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")


class Nginx:
    """nginx on loopback, before these servers (HOST:PORT)."""

    def __init__(
        self,
        binary: str,
        folder: Path,
        upstreams: Sequence[str],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        buffering: bool | None = None,
        deaf: bool = False,
        secured: bool = False,
    ) -> None:
        """`buffering` is as in the manifests, unless it is given; a `deaf` one does not heed X-Accel-Buffering. With
        `secured` the folder holds tls.crt and tls.key, and port 80 sends on to HTTPS.
        """
        self._address = host, port or free_port()
        self.url = f"{'https' if secured else 'http'}://{host}:{self._address[1]}"
        size, correlation, rate = (_plugin(name) for name in ("request-size", "correlation-id", "rate-limit"))
        times = service_annotations()
        assert times["konghq.com/retries"] == "0"
        route = yaml.safe_load((COMPONENTS / "gateway" / "http-route.yaml").read_text())["metadata"]["annotations"]
        if buffering is None:
            buffering = route["konghq.com/response-buffering"] != "false"
        assert size["size_unit"] == "bytes"
        config = folder / "nginx.conf"
        config.write_text(
            _CONFIG.format(
                folder=folder,
                listen="{}:{}".format(*self._address) + (" ssl" if secured else ""),
                plain=_PLAIN.format(host=host, **_redirect()) if secured else "",
                secured=_SECURED.format(folder=folder, strict=_strict_transport()) if secured else "",
                gathered=_GATHERING if deaf else "",
                user="root" if os.getuid() == 0 else "nobody",
                upstreams=" ".join(f"server {each};" for each in upstreams),
                body=size["allowed_payload_size"],
                header=correlation["header_name"],
                header_variable=correlation["header_name"].lower().replace("-", "_"),
                rate=rate["second"],
                refused=rate["error_code"],
                buffering="on" if buffering else "off",
                connect=times["konghq.com/connect-timeout"],
                read=times["konghq.com/read-timeout"],
                write=times["konghq.com/write-timeout"],
            )
        )
        self._process = ServerProcess(
            [binary, "-c", config, "-e", folder / "error.log"], folder / "nginx.log", last_will=signal.SIGTERM
        )
        wait_until(lambda: not self._process.is_running() or self._listens(), what="nginx listens")
        if not self._process.is_running():
            raise RuntimeError(f"nginx did not start:\n{self._process.log}")

    def stop(self) -> None:
        """Stop it at once."""
        self._process.stop(signal.SIGTERM)

    def _listens(self) -> bool:
        try:
            socket.create_connection(self._address, timeout=1).close()
        except OSError:
            return False
        return True


def _plugin(name: str) -> dict[str, Any]:
    plugin: dict[str, Any] = yaml.safe_load((COMPONENTS / "kong" / f"{name}-plugin.yaml").read_text())
    config: dict[str, Any] = plugin["config"]
    return config


def _redirect() -> dict[str, Any]:
    """The status and the scheme to which HTTP is sent on."""
    route = yaml.safe_load((COMPONENTS / "tls" / "redirect.yaml").read_text())
    redirect: dict[str, Any] = route["spec"]["rules"][0]["filters"][0]["requestRedirect"]
    return {"status": redirect["statusCode"], "scheme": redirect["scheme"]}


def _strict_transport() -> str:
    """The header that the manifests add where TLS is, as nginx takes it."""
    plugin = yaml.safe_load((COMPONENTS / "certificate" / "strict-transport-plugin.yaml").read_text())
    (header,) = plugin["config"]["add"]["headers"]
    name, _, value = header.partition(":")
    return f'{name} "{value}"'


def service_annotations() -> dict[str, str]:
    """What the manifests tell Kong about the API's Service."""
    component = yaml.safe_load((COMPONENTS / "kong" / "kustomization.yaml").read_text())
    (change,) = yaml.safe_load(component["patches"][0]["patch"])
    found: dict[str, str] = change["value"]
    return found
