"""`kgents tenant`: tenants, for platform administrators."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import typer

from kgents.cli.options import ContextName, Output, client, group, route
from kgents.cli.output import Format, show

tenant = group("Tenants, for platform administrators.")

COLUMNS = ("id", "name", "status", "requests_per_minute", "tokens_per_minute", "quotas", "created_at")


def _quotas(values: list[str]) -> dict[str, int | None]:
    quotas: dict[str, int | None] = {}
    for value in values:
        meter, separator, limit = value.partition("=")
        if not separator or not re.fullmatch(r"none|[0-9]{1,18}", limit):
            raise typer.BadParameter(f"{value!r} is not METER=NUMBER or METER=none", param_hint="--quota")
        quotas[meter] = None if limit == "none" else int(limit)
    return quotas


Quota = Annotated[list[str] | None, typer.Option("--quota", help="METER=NUMBER a month, or METER=none; repeatable.")]
Requests = Annotated[int | None, typer.Option("--requests-per-minute", help="The most requests a minute.", min=1)]
Tokens = Annotated[int | None, typer.Option("--tokens-per-minute", help="The most tokens a minute.", min=1)]


def _tenant_body(quota: list[str] | None, requests: int | None, tokens: int | None, **more: Any) -> dict[str, Any]:
    body = {"requests_per_minute": requests, "tokens_per_minute": tokens, **more}
    body = {name: value for name, value in body.items() if value is not None}
    return body | ({"quotas": _quotas(quota)} if quota else {})


@tenant.command("create")
def tenant_create(
    name: str,
    quota: Quota = None,
    requests: Requests = None,
    tokens: Tokens = None,
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """Create a tenant."""
    body = _tenant_body(quota, requests, tokens, name=name)
    show(client(context, admin=True).post("/v1/tenants", body), output)


@tenant.command("list")
def tenant_list(output: Output = Format.TABLE, context: ContextName = "") -> None:
    """List all tenants."""
    show(client(context, admin=True).every("/v1/tenants"), output, COLUMNS)


@tenant.command("get")
def tenant_get(tenant_id: str, output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Show a tenant."""
    show(client(context, admin=True).get(route("tenants", tenant_id)), output)


@tenant.command("update")
def tenant_update(
    tenant_id: str,
    name: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    status: Annotated[Literal["active", "suspended", "deleted"] | None, typer.Option(help="Its new status.")] = None,
    quota: Quota = None,
    requests: Requests = None,
    tokens: Tokens = None,
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """Change a tenant's name, status, rates or quotas."""
    body = _tenant_body(quota, requests, tokens, name=name, status=status)
    if not body:
        raise typer.BadParameter("Say what to change, such as --status suspended.")
    show(client(context, admin=True).patch(route("tenants", tenant_id), body), output)
