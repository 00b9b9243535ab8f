"""`kgents login`: keep a kgents and a key for it."""

from __future__ import annotations

import os
import sys
from getpass import getpass
from urllib.parse import urlsplit

from kgents.cli import context as contexts
from kgents.cli.client import Client, Refused
from kgents.cli.output import note


def run(url: str, name: str, admin_key: str) -> None:
    """Ask for the key, try it, and keep it. Raises Refused when it does not work there."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise Refused(f"{url!r} is not an address. It looks like https://agents.example.com")
    context = contexts.Context(name, url.rstrip("/"), os.environ.get("KGENTS_API_KEY") or _ask(), admin_key)
    tenant = Client(context).get("/v1/tenant")
    contexts.save(context)
    note(f"Logged in to {context.url} as tenant {tenant['name']!r}; context {name!r} is now the current one.")


def _ask() -> str:
    return getpass("API key: ") if sys.stdin.isatty() else sys.stdin.readline().strip()
