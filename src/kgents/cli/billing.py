"""`kgents plan`, `kgents subscription` and `kgents invoice`: what tenants pay."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import typer

from kgents.cli.options import ContextName, Output, client, group, route
from kgents.cli.output import Format, note, progress, show
from kgents.cli.tenants import Quota, quotas_of

plan = group("What can be bought.")
subscription = group("Who is on which plan.")
invoice = group("What a month costs.")

# Currencies whose minor unit is not a hundredth (https://docs.stripe.com/currencies).
_WHOLE = {
    "bif",
    "clp",
    "djf",
    "gnf",
    "jpy",
    "kmf",
    "krw",
    "mga",
    "pyg",
    "rwf",
    "ugx",
    "vnd",
    "vuv",
    "xaf",
    "xof",
    "xpf",
}
_THOUSANDTHS = {"bhd", "jod", "kwd", "omr", "tnd"}
_PRICE = re.compile(r"([a-z_]+)(?:@(\S+))?=([0-9]{1,12})(?:/([0-9]{1,10}))?")
_INCLUDED = re.compile(r"([a-z_]+)(?:@(\S+))?=([0-9]{1,16})")
PLANS = ("id", "name", "currency", "monthly_fee", "quotas", "created_at", "archived_at")
INVOICES = ("id", "period", "status", "amount", "created_at", "payment_url")
REVENUE = ("period", "status", "invoices", "amount")
LINES = ("plan", "meter", "model", "quantity", "included", "price", "amount", "start", "end")

TenantOption = Annotated[str, typer.Option("--tenant", help="Another tenant's, for platform administrators.")]


def money(amount: int, currency: str) -> str:
    """An amount of minor units as people write it: `12.34 eur`."""
    places = 0 if currency in _WHOLE else 3 if currency in _THOUSANDTHS else 2
    digits = str(amount).rjust(places + 1, "0")
    return (
        f"{digits[: len(digits) - places]}.{digits[len(digits) - places :]} {currency}"
        if places
        else (f"{amount} {currency}")
    )


def _prices(prices: list[str], included: list[str]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str | None], dict[str, Any]] = {}
    for value in prices:
        match = _PRICE.fullmatch(value)
        if match is None:
            raise typer.BadParameter(
                f"{value!r} is not METER=AMOUNT/PER or METER@MODEL=AMOUNT/PER", param_hint="--price"
            )
        meter, model, amount, per = match.groups()
        if (meter, model) in found:
            raise typer.BadParameter(f"{value!r} is a second price of the same", param_hint="--price")
        found[meter, model] = {"meter": meter, "model": model, "amount": int(amount), "per": int(per or 1)}
    for value in included:
        match = _INCLUDED.fullmatch(value)
        if match is None:
            raise typer.BadParameter(f"{value!r} is not METER=NUMBER or METER@MODEL=NUMBER", param_hint="--included")
        meter, model, number = match.groups()
        if (meter, model) not in found:
            raise typer.BadParameter(f"{value!r} has no --price of the same", param_hint="--included")
        found[meter, model]["included"] = int(number)
    return list(found.values())


@plan.command("create")
def plan_create(
    name: str,
    currency: Annotated[str, typer.Option(help="As ISO 4217 has it, in small letters, such as eur.")],
    monthly_fee: Annotated[int, typer.Option(help="The fee of a month, in minor units (cents).", min=0)] = 0,
    price: Annotated[
        list[str] | None,
        typer.Option(help="METER=AMOUNT/PER: so many minor units for so many units; METER@MODEL=... for one model."),
    ] = None,
    included: Annotated[
        list[str] | None, typer.Option(help="METER=NUMBER: the first so many units of a month cost nothing.")
    ] = None,
    quota: Quota = None,
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """Create a plan. It can't be changed later: another price is another plan."""
    body = {
        "name": name,
        "currency": currency,
        "monthly_fee": monthly_fee,
        "prices": _prices(price or [], included or []),
        "quotas": quotas_of(quota or []),
    }
    show(client(context, admin=True).post("/v1/plans", body), output)


@plan.command("list")
def plan_list(output: Output = Format.TABLE, context: ContextName = "") -> None:
    """List all plans."""
    show(client(context, admin=True).every("/v1/plans"), output, PLANS)


@plan.command("get")
def plan_get(plan_id: str, output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Show a plan."""
    show(client(context, admin=True).get(route("plans", plan_id)), output)


@plan.command("archive")
def plan_archive(plan_id: str, output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Offer a plan no more. Who is on it stays on it."""
    show(client(context, admin=True).delete(route("plans", plan_id)), output)


@subscription.command("set")
def subscription_set(tenant_id: str, plan_id: str, output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Put a tenant on a plan from now on. The plan's quotas take the place of the tenant's."""
    path = route("tenants", tenant_id, "subscription")
    show(client(context, admin=True).put(path, {"plan": plan_id}), output)


@subscription.command("get")
def subscription_get(tenant: TenantOption = "", output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Show what you, or a tenant, are subscribed to."""
    path = route("tenants", tenant, "subscription") if tenant else "/v1/subscription"
    show(client(context, admin=bool(tenant)).get(path), output)


@subscription.command("end")
def subscription_end(tenant_id: str, output: Output = Format.TABLE, context: ContextName = "") -> None:
    """End a tenant's subscription now. Its quotas are 0 from then on."""
    show(client(context, admin=True).delete(route("tenants", tenant_id, "subscription")), output)


@invoice.command("list")
def invoice_list(tenant: TenantOption = "", output: Output = Format.TABLE, context: ContextName = "") -> None:
    """List your invoices, or a tenant's, newest first."""
    path = route("tenants", tenant, "invoices") if tenant else "/v1/invoices"
    found = client(context, admin=bool(tenant)).every(path)
    if output is Format.TABLE:
        found = [each | {"amount": money(each["total"], each["currency"])} for each in found]
    show(found, output, INVOICES)


@invoice.command("get")
def invoice_get(invoice_id: str, output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Show an invoice of yours."""
    _show(client(context).get(route("invoices", invoice_id)), output)


@invoice.command("upcoming")
def invoice_upcoming(output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Show what this month comes to so far."""
    _show(client(context).get("/v1/invoices/upcoming"), output)


@invoice.command("revenue")
def invoice_revenue(
    first: Annotated[str, typer.Option("--from", help="A month, such as 2026-01; a year before the last.")] = "",
    last: Annotated[str, typer.Option("--to", help="A month; this one.")] = "",
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """What all tenants' invoices come to, by month, currency and status."""
    found = client(context, admin=True).get("/v1/revenue", **{"from": first, "to": last})["data"]
    if output is Format.TABLE:
        found = [each | {"amount": money(each["amount"], each["currency"])} for each in found]
    show(found, output, REVENUE)


@invoice.command("mark")
def invoice_mark(
    tenant_id: str,
    invoice_id: str,
    status: Annotated[Literal["paid", "uncollectible", "void"], typer.Argument(help="What became of it.")],
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """Write what became of a tenant's invoice."""
    path = route("tenants", tenant_id, "invoices", invoice_id)
    _show(client(context, admin=True).patch(path, {"status": status}), output)


@invoice.command("reconcile")
def invoice_reconcile(
    period: Annotated[str, typer.Argument(help="A month, such as 2026-11.")], output: Output = Format.TABLE
) -> None:
    """Compare each invoice of a month with the ledger's events, and with Stripe. Exits with 1 where they differ.

    An operator's command: it needs KGENTS_DATABASE_URL, or KGENTS_DATA_DIR of a running kgents up; and for Stripe
    KGENTS_STRIPE_API_KEY.
    """
    from kgents.cli import invoices

    with progress("comparing invoices and ledger"):
        report = invoices.reconcile(period)
    if output is not Format.TABLE:
        show({name: report[name] for name in ("compared", "differences", "missing")}, output)
    elif report["differences"]:
        show(report["differences"], output, ("tenant", "invoice", "what", "invoiced", "found"))
    note(report["summary"])
    if report["differences"] or report["missing"]:
        raise SystemExit(1)


def _show(found: dict[str, Any], output: Format) -> None:
    if output is not Format.TABLE:
        show(found, output)
        return
    currency = found["currency"]
    lines = [
        line
        | {
            "meter": line["meter"] or "monthly fee",
            "price": f"{money(line['unit_amount'], currency)}" + (f" / {line['per']}" if line["per"] > 1 else ""),
            "amount": money(line["amount"], currency),
        }
        for line in found["lines"]
    ]
    show({"id": found["id"], "tenant": found["tenant"], "period": found["period"], "status": found["status"]}, output)
    if lines:
        show(lines, output, LINES)
    show({"total": money(found["total"], currency)}, output)
