"""What a NATS server says about itself over HTTP."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

from kgents.bus.model import BusUnavailable


def healthy(monitor_url: str, timeout: float = 1.0) -> bool:
    """Whether a server says that it and its JetStream work."""
    try:
        return _get(monitor_url, "/healthz", timeout)[0] == 200
    except OSError:
        return False


def verify_durable(monitor_urls: str, timeout: float = 2.0) -> None:
    """Raise BusUnavailable unless each server says that it writes to disk before it acknowledges.

    `monitor_urls` are the HTTP monitoring addresses, separated by commas. The server reports it at /varz in
    `jetstream.config.sync_always` (nats-server 2.10 and newer).
    """
    for url in monitor_urls.split(","):
        try:
            status, body = _get(url.strip(), "/varz", timeout)
            config = json.loads(body).get("jetstream", {}).get("config") if status == 200 else None
            durable = config is not None and config.get("sync_always") is True
        except AttributeError as error:
            raise BusUnavailable(
                f"what answers at {url} is not a NATS server's monitoring: its /varz is not one of nats-server's. "
                "Correct KGENTS_NATS_MONITOR_URL."
            ) from error
        except (OSError, ValueError) as error:
            raise BusUnavailable(
                f"the NATS server's monitoring at {url} does not answer ({type(error).__name__}), so it is not known "
                "whether it writes to disk before it acknowledges. Correct KGENTS_NATS_MONITOR_URL."
            ) from error
        if not config:
            raise BusUnavailable(f"the NATS server monitored at {url} has no JetStream. Switch it on.")
        if not durable:
            raise BusUnavailable(
                f"the NATS server monitored at {url} acknowledges messages before they are on disk, and would lose "
                "them in a power cut. Set `sync_interval: always` in its `jetstream` configuration.",
                code="bus-not-durable",
            )


def _get(base_url: str, path: str, timeout: float) -> tuple[int, bytes]:
    url = urlsplit(base_url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port or 8222, timeout=timeout)
    try:
        connection.request("GET", url.path.rstrip("/") + path)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
