"""What the prover does not know fails it, with what to add."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from tests.isolation.prover import NotCovered, operations_of

DOCUMENT: dict[str, Any] = {
    "paths": {
        "/v1/runs/{run_id}": {
            "post": {
                "parameters": [{"name": "run_id", "in": "path"}],
                "requestBody": {
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/RotateRequest"}}}
                },
            }
        }
    },
    "components": {"schemas": {"RotateRequest": {"properties": {"overlap_seconds": {}}}}},
}


def changed(**change: Any) -> dict[str, Any]:
    """The document with another operation."""
    document = deepcopy(DOCUMENT)
    document["paths"]["/v1/runs/{run_id}"]["post"] |= change
    return document


def test_what_is_known_is_covered() -> None:
    (operation,) = operations_of(DOCUMENT)
    assert [(slot.where, slot.name) for slot in operation.slots] == [("path", "run_id")]


@pytest.mark.parametrize("where", ["path", "query", "header"])
def test_a_parameter_that_is_new_fails(where: str) -> None:
    with pytest.raises(NotCovered, match=f"'thread_id' in the {where}: add it to .*catalog.py"):
        operations_of(changed(parameters=[{"name": "thread_id", "in": where}]))


def test_a_kind_of_parameter_that_is_new_fails() -> None:
    with pytest.raises(NotCovered, match="'thread_id' in the cookie: teach the prover"):
        operations_of(changed(parameters=[{"name": "thread_id", "in": "cookie"}]))


def test_a_field_that_is_new_fails() -> None:
    document = deepcopy(DOCUMENT)
    document["components"]["schemas"]["RotateRequest"]["properties"]["thread_id"] = {}
    with pytest.raises(NotCovered, match=r"\['thread_id'\] in its body \(RotateRequest\): add each to FIELDS"):
        operations_of(document)


def test_a_body_that_is_new_fails() -> None:
    document = changed(requestBody={"content": {"application/json": {"schema": {"$ref": "#/components/schemas/New"}}}})
    document["components"]["schemas"]["New"] = {"properties": {}}
    with pytest.raises(NotCovered, match="takes a New: add a valid one to BODIES"):
        operations_of(document)


def test_a_body_that_is_no_json_fails() -> None:
    with pytest.raises(NotCovered, match="no named JSON schema"):
        operations_of(changed(requestBody={"content": {"multipart/form-data": {"schema": {}}}}))
