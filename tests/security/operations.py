"""The API's operations as its document lists them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MUTATING = ("POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of the API; `schema` names its body's."""

    id: str
    method: str
    path: str
    schema: str

    @property
    def some_path(self) -> str:
        """Its path, with something for each parameter that nobody has."""
        return re.sub(r"\{\w+\}", "nobody", self.path)


def operations_of(document: Mapping[str, Any]) -> list[Operation]:
    """The operations of a document that need a key."""
    return [
        Operation(
            operation["operationId"],
            method.upper(),
            path,
            operation.get("requestBody", {})
            .get("content", {})
            .get("application/json", {})
            .get("schema", {})
            .get("$ref", "")
            .rpartition("/")[2],
        )
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if path.startswith("/v1/")
    ]
