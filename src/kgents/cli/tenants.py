"""`kgents tenant`: tenants, for platform administrators; and export and erasure, for operators."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from kgents.cli.options import ContextName, Output, client, group, route
from kgents.cli.output import Format, note, progress, show

tenant = group("Tenants, for platform administrators.")

COLUMNS = ("id", "name", "status", "requests_per_minute", "tokens_per_minute", "quotas", "created_at")


def quotas_of(values: list[str]) -> dict[str, int | None]:
    """Quotas of METER=NUMBER and METER=none. Raises BadParameter."""
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
    return body | ({"quotas": quotas_of(quota)} if quota else {})


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


@tenant.command("export")
def tenant_export(
    tenant_id: str,
    to: Annotated[Path, typer.Option(help="A new folder, or a new file whose name ends with .tar.gz.")],
) -> None:
    """Write out everything that a tenant has, as JSON Lines.

    An operator's command: it needs the settings of a kgents process (KGENTS_DATABASE_URL, KGENTS_NATS_URL), or
    KGENTS_DATA_DIR of a running kgents up.
    """
    from kgents.cli import privacy

    done = privacy.export_to(tenant_id, to)
    note(f"{done.path} is whole: {sum(done.counts.values())} objects")


@tenant.command("erase")
def tenant_erase(
    tenant_id: Annotated[str, typer.Argument(help="The tenant's id.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Every tenant that was erased, after a restore.")] = False,
    yes_erase: Annotated[str, typer.Option(metavar="NAME", help="The tenant's name, instead of typing it.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Erase a tenant for good: all that anybody wrote, and its keys. What it used stays in the ledger.

    Its runs are cancelled first. Cut off, it may be run again. An operator's command: it needs KGENTS_DATABASE_URL,
    KGENTS_DATABASE_OWNER_URL and KGENTS_NATS_URL, or KGENTS_DATA_DIR of a running kgents up.
    """
    if bool(tenant_id) == again:
        raise typer.BadParameter("Say which tenant, or --again.", param_hint="TENANT_ID")
    from kgents.cli import privacy

    if again:
        found = privacy.erase_again()
        show([{"tenant": one, "erased": counts} for one, counts in found.items()], output, ("tenant", "erased"))
        return
    counts = privacy.erase(tenant_id, lambda name: _confirm(name, yes_erase))
    show([{"what": what, "erased": count} for what, count in counts.items()], output, ("what", "erased"))
    note(f"{tenant_id} is erased" if counts else f"nothing was left of {tenant_id}")


@tenant.command("erased")
def tenant_erased(output: Output = Format.TABLE) -> None:
    """List the tenants that were erased, as database and event bus remember them."""
    from kgents.cli import privacy

    with progress("reading"):
        found = privacy.erased()
    show(found, output, ("tenant", "begun_at", "done_at"))


def _confirm(name: str, given: str) -> None:
    """Raise Refused unless the operator names the tenant, by an option or at the terminal."""
    from kgents.cli.client import Refused

    if not given:
        if not sys.stdin.isatty():
            raise Refused(f"This erases the tenant {name!r} for good. Confirm it with: --yes-erase NAME")
        note(f"This erases the tenant {name!r} for good: its agents, sessions, messages, runs and keys.")
        try:
            given = input("Type its name: ")
        except EOFError:
            given = ""
    if given != name:
        raise Refused("That is not the tenant's name. Nothing was erased.")
