"""`kgents login`: keep a kgents and a key for it."""

from __future__ import annotations

import os
import sys
from getpass import getpass

from kgents.cli import context as contexts
from kgents.cli.client import Client, Refused, connect
from kgents.cli.output import note


def run(url: str, name: str, admin_key: str) -> None:
    """Ask for the key, try it, and keep it. Raises Refused when it does not work there, and then keeps nothing."""
    url = url.rstrip("/")
    connect(url, timeout=10).close()  # an address that is none is told before a key is asked for
    context = contexts.Context(name, url, os.environ.get("KGENTS_API_KEY") or _ask(), admin_key)
    tenant = Client(context).get("/v1/tenant")
    if tenant.get("object") != "tenant":
        raise Refused(f"What {url} answered is not from a kgents. Check the address.")
    if admin_key:
        Client(context, admin=True).get("/v1/tenants", limit=1)
    contexts.save(context)
    note(f"Logged in to {context.url} as tenant {tenant['name']!r}; context {name!r} is now the current one.")


def _ask() -> str:
    key = getpass("API key: ") if sys.stdin.isatty() else sys.stdin.readline()
    if not key.strip():
        raise Refused("No API key was given. Type it when asked, pipe it in, or set KGENTS_API_KEY.")
    return key.strip()
