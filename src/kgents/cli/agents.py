"""`kgents agent`: agents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from kgents.cli.options import ContextName, Output, client, group, route
from kgents.cli.output import Format, show

agent = group("Agents.")

COLUMNS = ("id", "name", "version", "model", "updated_at")


def _json_file(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise typer.BadParameter(f"{path} is not JSON: {error}") from error
    except RecursionError as error:
        raise typer.BadParameter(f"{path} is nested too deeply") from error
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{path} holds no JSON object")
    return found


def _definition(
    model: str | None, instructions: str | None, tool: list[str] | None, schema: Path | None, file: Path | None
) -> dict[str, Any]:
    body: dict[str, Any] = _json_file(file) if file else {}
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
    show(client(context).post("/v1/agents", body), output)


@agent.command("list")
def agent_list(output: Output = Format.TABLE, context: ContextName = "") -> None:
    """List the tenant's agents."""
    show(client(context).every("/v1/agents"), output, COLUMNS)


@agent.command("get")
def agent_get(agent: str, output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Show an agent."""
    show(client(context).get(route("agents", agent)), output)


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
    body = _definition(model, instructions, tool, schema, file)
    if not body:
        raise typer.BadParameter("Say what to change, such as --instructions TEXT.")
    show(client(context).patch(route("agents", agent), body), output)


@agent.command("delete")
def agent_delete(agent: str, output: Output = Format.TABLE, context: ContextName = "") -> None:
    """Delete an agent."""
    show(client(context).delete(route("agents", agent)), output)


@agent.command("versions")
def agent_versions(agent: str, output: Output = Format.TABLE, context: ContextName = "") -> None:
    """List an agent's versions."""
    show(client(context).every(route("agents", agent, "versions")), output, COLUMNS)
