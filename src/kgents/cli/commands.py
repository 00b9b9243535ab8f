"""Commands over the HTTP API: tenants, keys, agents, runs, health, contexts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from kgents.cli.output import ContextName, Format, Output, note, show

tenant = typer.Typer(help="Tenants, for platform administrators.", no_args_is_help=True)
key = typer.Typer(help="API keys.", no_args_is_help=True)
agent = typer.Typer(help="Agents.", no_args_is_help=True)
run = typer.Typer(help="Runs.", no_args_is_help=True)
context = typer.Typer(help="Which kgents the commands use.", no_args_is_help=True)

TENANT_COLUMNS = ("id", "name", "status", "requests_per_minute", "tokens_per_minute", "quotas", "created_at")
KEY_COLUMNS = ("id", "name", "status", "scopes", "created_at", "expires_at", "last_used_at")
AGENT_COLUMNS = ("id", "name", "version", "model", "updated_at")
RUN_COLUMNS = ("id", "agent_id", "mode", "status", "usage", "created_at", "finished_at")


def _client(name: str, *, admin: bool = False) -> Any:
    from kgents.cli import context as contexts
    from kgents.cli.client import Client

    return Client(contexts.current(name), admin=admin)


def _quotas(values: list[str]) -> dict[str, int | None]:
    quotas: dict[str, int | None] = {}
    for value in values:
        meter, separator, limit = value.partition("=")
        if not separator or not (limit == "none" or limit.isdigit()):
            raise typer.BadParameter(f"{value!r} is not METER=NUMBER or METER=none", param_hint="--quota")
        quotas[meter] = None if limit == "none" else int(limit)
    return quotas


Quota = Annotated[list[str] | None, typer.Option("--quota", help="METER=NUMBER a month, or METER=none; repeatable.")]
Requests = Annotated[int | None, typer.Option("--requests-per-minute", min=1)]
Tokens = Annotated[int | None, typer.Option("--tokens-per-minute", min=1)]


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
    show(_client(context, admin=True).post("/v1/tenants", body), output)


@tenant.command("list")
def tenant_list(output: Output = Format.TABLE, context: ContextName = "") -> None:
    """List all tenants."""
    show(_client(context, admin=True).every("/v1/tenants"), output, TENANT_COLUMNS)


@tenant.command("get")
def tenant_get(tenant_id: str, output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Show a tenant."""
    show(_client(context, admin=True).get(f"/v1/tenants/{tenant_id}"), output)


@tenant.command("update")
def tenant_update(
    tenant_id: str,
    name: Annotated[str | None, typer.Option()] = None,
    status: Annotated[str | None, typer.Option(help="active, suspended or deleted.")] = None,
    quota: Quota = None,
    requests: Requests = None,
    tokens: Tokens = None,
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """Change a tenant's name, status, rates or quotas."""
    body = _tenant_body(quota, requests, tokens, name=name, status=status)
    show(_client(context, admin=True).patch(f"/v1/tenants/{tenant_id}", body), output)


@key.command("create")
def key_create(
    name: str,
    role: Annotated[str | None, typer.Option(help="owner, developer or viewer.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="A scope; repeatable. Instead of a role.")] = None,
    expires_at: Annotated[str | None, typer.Option(help="RFC 3339, e.g. 2027-01-01T00:00:00Z.")] = None,
    tenant_id: Annotated[str, typer.Option("--tenant", help="Another tenant's, as platform administrator.")] = "",
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """Create an API key. Its token is printed once."""
    body: dict[str, Any] = {"name": name}
    if scope:
        body["scopes"] = scope
    else:
        body["role"] = role or "developer"
    if expires_at:
        body["expires_at"] = expires_at
    path = f"/v1/tenants/{tenant_id}/api-keys" if tenant_id else "/v1/api-keys"
    show(_client(context, admin=bool(tenant_id)).post(path, body), output)
    note("The token is shown only now; keep it safe.")


@key.command("list")
def key_list(output: Output = Format.TABLE, context: ContextName = "") -> None:
    """List the tenant's API keys."""
    show(_client(context).every("/v1/api-keys"), output, KEY_COLUMNS)


@key.command("rotate")
def key_rotate(
    key_id: str,
    overlap: Annotated[int, typer.Option(help="Seconds that the old key works on.", min=0)] = 86_400,
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """Replace a key; the old one works on for the overlap."""
    show(_client(context).post(f"/v1/api-keys/{key_id}/rotate", {"overlap_seconds": overlap}), output)
    note("The token is shown only now; keep it safe.")


@key.command("revoke")
def key_revoke(key_id: str, output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Stop a key."""
    show(_client(context).delete(f"/v1/api-keys/{key_id}"), output)


def _json_file(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise typer.BadParameter(f"{path} is not JSON: {error}") from error


def _definition(
    model: str | None, instructions: str | None, tool: list[str] | None, schema: Path | None, file: Path | None
) -> dict[str, Any]:
    body: dict[str, Any] = dict(_json_file(file)) if file else {}
    if model:
        body["model"] = model
    if instructions is not None:
        body["instructions"] = instructions
    if tool:
        body["tools"] = [{"type": "builtin", "name": name} for name in tool]
    if schema:
        body["output_schema"] = _json_file(schema)
    return body


Model = Annotated[str | None, typer.Option(help="PROVIDER:MODEL, such as kgents:echo or openai:gpt-5.")]
Instructions = Annotated[str | None, typer.Option(help="What the agent is told to be.")]
Tool = Annotated[list[str] | None, typer.Option(help="A built-in tool; repeatable.")]
SchemaFile = Annotated[Path | None, typer.Option("--output-schema", help="A file with a JSON schema.")]
DefinitionFile = Annotated[Path | None, typer.Option("--file", "-f", help="A file with the definition, as JSON.")]


@agent.command("create")
def agent_create(
    name: str,
    model: Model = None,
    instructions: Instructions = None,
    tool: Tool = None,
    schema: SchemaFile = None,
    file: DefinitionFile = None,
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """Create an agent."""
    body = {"model": "kgents:echo"} | _definition(model, instructions, tool, schema, file) | {"name": name}
    show(_client(context).post("/v1/agents", body), output)


@agent.command("list")
def agent_list(output: Output = Format.TABLE, context: ContextName = "") -> None:
    """List the tenant's agents."""
    show(_client(context).every("/v1/agents"), output, AGENT_COLUMNS)


@agent.command("get")
def agent_get(agent: str, output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Show an agent."""
    show(_client(context).get(f"/v1/agents/{agent}"), output)


@agent.command("update")
def agent_update(
    agent: str,
    model: Model = None,
    instructions: Instructions = None,
    tool: Tool = None,
    schema: SchemaFile = None,
    file: DefinitionFile = None,
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """Change an agent: a new version, which new runs use."""
    show(_client(context).patch(f"/v1/agents/{agent}", _definition(model, instructions, tool, schema, file)), output)


@agent.command("delete")
def agent_delete(agent: str, output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Delete an agent."""
    show(_client(context).delete(f"/v1/agents/{agent}"), output)


@agent.command("versions")
def agent_versions(agent: str, output: Output = Format.TABLE, context: ContextName = "") -> None:
    """List an agent's versions."""
    show(_client(context).every(f"/v1/agents/{agent}/versions"), output, AGENT_COLUMNS)


@run.command("create")
def run_create(
    agent: str,
    text: str,
    background: Annotated[bool, typer.Option(help="Answer at once; follow it with: kgents run events ID")] = False,
    session: Annotated[str, typer.Option(help="Go on in this session instead of a new one.")] = "",
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """Run an agent."""
    client = _client(context)
    session = session or client.post("/v1/sessions", {"agent": agent})["id"]
    mode = "background" if background else "wait"
    show(client.post(f"/v1/sessions/{session}/runs", {"input": text, "mode": mode}), output)


@run.command("list")
def run_list(
    status: Annotated[str, typer.Option(help="queued, running, completed, failed or cancelled.")] = "",
    session: Annotated[str, typer.Option(help="Only this session's.")] = "",
    most: Annotated[int, typer.Option(help="How many at most.", min=1)] = 20,
    output: Output = Format.TABLE,
    context: ContextName = "",
) -> None:
    """List runs, newest first."""
    found = _client(context).every("/v1/runs", most=most, status=status, session_id=session)
    show(found, output, RUN_COLUMNS)


@run.command("get")
def run_get(run_id: str, output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Show a run."""
    show(_client(context).get(f"/v1/runs/{run_id}"), output)


@run.command("cancel")
def run_cancel(run_id: str, output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Ask for a run's end."""
    show(_client(context).post(f"/v1/runs/{run_id}/cancel"), output)


@run.command("events")
def run_events(run_id: str, context: ContextName = "") -> None:
    """Follow a run's events to its end, one line of JSON each."""
    with _client(context).stream(f"/v1/runs/{run_id}/events", None, method="GET") as events:
        for type_, id_, data in events:
            typer.echo(json.dumps({"id": id_, "type": type_, "data": data}))


@context.command("list")
def context_list(output: Output = Format.TABLE) -> None:
    """List the contexts."""
    from kgents.cli import context as contexts

    rows = [{"current": current, "name": found.name, "url": found.url} for found, current in contexts.every()]
    show(rows, output, ("current", "name", "url"))


@context.command("use")
def context_use(name: str) -> None:
    """Make a context the current one."""
    from kgents.cli import context as contexts

    contexts.use(name)
    note(f"Using {name}.")
