"""`kgents key`: API keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from kgents.cli.options import ContextName, Output, client, group, moment, route
from kgents.cli.output import Format, note, show

key = group("API keys.")

COLUMNS = ("id", "name", "status", "scopes", "created_at", "expires_at", "last_used_at")


@key.command("create")
def key_create(
    name: str,
    role: Annotated[
        Literal["owner", "developer", "viewer"] | None, typer.Option(help="What it may do; developer by default.")
    ] = None,
    scope: Annotated[list[str] | None, typer.Option(help="A scope; repeatable. Instead of a role.")] = None,
    expires_at: Annotated[
        str | None, typer.Option(parser=moment, metavar="TIME", help="RFC 3339 or a day, such as 2027-01-01.")
    ] = None,
    tenant_id: Annotated[str, typer.Option("--tenant", help="Another tenant's, as platform administrator.")] = "",
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """Create an API key. Its token is printed once."""
    if role and scope:
        raise typer.BadParameter("Give --role or --scope, not both.")
    body: dict[str, Any] = {"name": name}
    if scope:
        body["scopes"] = scope
    else:
        body["role"] = role or "developer"
    if expires_at:
        body["expires_at"] = expires_at
    where = route("tenants", tenant_id, "api-keys") if tenant_id else "/v1/api-keys"
    show(client(context, admin=bool(tenant_id)).post(where, body), output)
    note("The token is shown only now; keep it safe.")


@key.command("bootstrap")
def key_bootstrap(
    name: Annotated[str, typer.Argument(help="What to call it.")] = "first", output: Output = Format.TABLE
) -> None:
    """Create a new installation's first key, a platform administrator's.

    An operator's command: it needs the settings of a kgents process (KGENTS_DATABASE_URL, KGENTS_PEPPER).
    """
    from kgents.cli import bootstrap

    show(bootstrap.run(name), output)
    note("The token is shown only now; keep it safe.")


@key.command("list")
def key_list(output: Output = Format.TABLE, context: ContextName = "") -> None:
    """List the tenant's API keys."""
    show(client(context).every("/v1/api-keys"), output, COLUMNS)


@key.command("rotate")
def key_rotate(
    key_id: str,
    overlap: Annotated[int, typer.Option(help="Seconds that the old key works on.", min=0)] = 86_400,
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """Replace a key; the old one works on for the overlap."""
    show(client(context).post(route("api-keys", key_id, "rotate"), {"overlap_seconds": overlap}), output)
    note("The token is shown only now; keep it safe.")


@key.command("revoke")
def key_revoke(key_id: str, output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Stop a key."""
    show(client(context).delete(route("api-keys", key_id)), output)
