"""The OpenAPI document's links: which operation takes what an answer of another one gave.

A client's generator, and the fuzzing of the API, follow them from a tenant to its keys, and from an agent over its
sessions and runs to their events.
"""

from __future__ import annotations

from typing import Any

_ID = "$response.body#/id"
_RUN = "$response.header.X-Run-Id"

# By the operation that answers and the status: the operation that takes it, and its parameters; "body" is its body.
_Links = dict[tuple[str, str], dict[str, dict[str, Any]]]
_OF_A_RUN: dict[str, dict[str, Any]] = {
    "get_run": {"run_id": _RUN},
    "cancel_run": {"run_id": _RUN},
    "stream_run_events": {"run_id": _RUN},
    "list_usage_events": {"run": _RUN},
}
LINKS: _Links = {
    ("create_tenant", "201"): {
        "get_tenant": {"tenant_id": _ID},
        "update_tenant": {"tenant_id": _ID},
        "create_tenant_api_key": {"tenant_id": _ID},
    },
    ("create_api_key", "201"): {
        "get_api_key": {"key_id": _ID},
        "rotate_api_key": {"key_id": _ID},
        "revoke_api_key": {"key_id": _ID},
    },
    ("rotate_api_key", "201"): {
        "get_api_key": {"key_id": _ID},
        "revoke_api_key": {"key_id": _ID},
    },
    ("create_agent", "201"): {
        "get_agent": {"agent": _ID},
        "update_agent": {"agent": _ID},
        "delete_agent": {"agent": _ID},
        "list_agent_versions": {"agent": _ID},
        "get_agent_version": {"agent": _ID, "version": "$response.body#/version"},
        "get_model": {"model": "$response.body#/name"},
        "create_session": {"body": {"agent": _ID}},
        "create_chat_completion": {"body": {"model": _ID}},
        "create_response": {"body": {"model": _ID}},
    },
    ("create_session", "201"): {
        "get_session": {"session_id": _ID},
        "delete_session": {"session_id": _ID},
        "list_messages": {"session_id": _ID},
        "create_run": {"session_id": _ID},
        "list_runs": {"session_id": _ID},
    },
    ("create_run", "200"): _OF_A_RUN,
    ("create_run", "202"): _OF_A_RUN,
    ("create_chat_completion", "200"): _OF_A_RUN,
    ("create_response", "200"): _OF_A_RUN
    | {
        "get_response": {"response_id": _ID},
        "cancel_response": {"response_id": _ID},
        "delete_response": {"response_id": _ID},
    },
}


def add_links(document: dict[str, Any]) -> None:
    """Write the links into an OpenAPI document."""
    operations = {
        operation["operationId"]: operation for methods in document["paths"].values() for operation in methods.values()
    }
    for (source, status), targets in LINKS.items():
        answer = operations[source]["responses"][status]
        if _OF_A_RUN.items() <= targets.items():
            answer.setdefault("headers", {})["X-Run-Id"] = {
                "description": "The id of the run.",
                "schema": {"type": "string"},
            }
        answer["links"] = {target: _link(target, operations[target], given) for target, given in targets.items()}


def _link(target: str, operation: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    places = {parameter["name"]: parameter["in"] for parameter in operation.get("parameters", ())}
    link: dict[str, Any] = {"operationId": target}
    parameters = {f"{places[name]}.{name}": value for name, value in given.items() if name != "body"}
    if parameters:
        link["parameters"] = parameters
    if "body" in given:
        link["requestBody"] = given["body"]
    return link
