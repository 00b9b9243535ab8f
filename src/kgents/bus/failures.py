"""What went wrong with a connection, said for people and without credentials."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from nats import errors as nats_errors

from kgents.bus.model import BusUnavailable


def describe(error: Exception, servers: Sequence[str], password: str) -> str:
    """One or two sentences about a failure of the connection to `servers` (NATS URLs)."""
    if isinstance(error, BusUnavailable):
        return error.why
    try:
        urls = [urlsplit(server if "://" in server else f"nats://{server}") for server in servers]
        where = "the NATS server at " + ", ".join(f"{url.hostname}:{url.port or 4222}" for url in urls)
    except ValueError:  # its text may hold a password
        return "KGENTS_NATS_URL is no URL that can be used. Correct it to one such as nats://nats:4222."
    if isinstance(error, nats_errors.AuthorizationError) or "authorization" in str(error).lower():
        return f"{where} refused the user name or password. Correct KGENTS_NATS_USER and KGENTS_NATS_PASSWORD."
    if isinstance(error, ConnectionRefusedError):
        return f"{where} is not running: nothing listens there."
    if isinstance(error, TimeoutError):
        return f"{where} does not answer."
    if isinstance(error, nats_errors.StaleConnectionError | nats_errors.ConnectionClosedError | ConnectionError):
        return f"{where} closed the connection."
    reason = f"{type(error).__name__}: {error}"
    for secret in (password, *(url.password or "" for url in urls)):
        reason = reason.replace(secret, "***") if secret else reason
    return f"{where} can't be used ({reason})."
