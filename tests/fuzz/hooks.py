"""What schemathesis does before each call: it keeps what the rest of its run needs, and its requests apart."""

from __future__ import annotations

import itertools
import os
from typing import Any

import schemathesis

# The ids and names of the callers' own keys, tenants and agent, which no request of theirs may end.
KEPT = frozenset(os.environ.get("KGENTS_FUZZ_KEPT", "").split())
ENDING = (
    *("revoke_api_key", "rotate_api_key", "update_tenant", "update_agent", "delete_agent"),
    *("set_subscription", "end_subscription"),
)
ELSEWHERE = "not-a-callers-own"
NAMED = ("create_agent", "create_plan", "create_tenant")
# What is created can be deleted; a request that is sent again is answered as the first one was, also after that.
DELETABLE = ("create_agent", "create_response", "create_session")

_numbers = itertools.count(1)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Aim elsewhere what would end a caller's key; and have three requests in four be new ones, with a key and a name
    that were not used before, since schemathesis sends the same ones again and again. What creates something that can
    be deleted always has a new key.
    """
    operation = case.operation.definition.raw.get("operationId")
    if operation in ENDING:
        for name, value in (case.path_parameters or {}).items():
            if value in KEPT:
                case.path_parameters[name] = ELSEWHERE
    number = next(_numbers)
    again = number % 4 == 0
    headers = case.headers
    key = (headers or {}).get("Idempotency-Key")
    if key and len(str(key)) < 240 and (not again or operation in DELETABLE):
        headers["Idempotency-Key"] = f"{key}.{number}"
    body = case.body
    if (
        not again
        and operation in NAMED
        and isinstance(body, dict)
        and isinstance(body.get("name"), str)
        and 0 < len(body["name"]) < 50
    ):
        case.body = {**body, "name": f"{body['name']}{number}"}


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Let pass that a key and a plan can be seen after their DELETE, as the document says: they must then be shown as
    revoked and archived; that there is nothing where a request was aimed elsewhere; and that a new tenant has no
    subscription.
    """
    without = b"subscription-not-found" in response.content
    if without or ELSEWHERE in (case.path_parameters or {}).values():
        return type(failure).__name__ != "EnsureResourceAvailability"
    if type(failure).__name__ != "UseAfterFree":
        return True
    ended = {"/v1/api-keys/": b'"status":"revoked"', "/v1/plans/": b'"archived_at":"'}
    return not any(case.operation.path.startswith(path) and mark in response.content for path, mark in ended.items())
