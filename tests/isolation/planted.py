"""`kgents` with one fault: the repository function that PLANT names (module:function) has lost its tenant filter."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BinaryExpression


class _Unfiltered:
    """A connection whose statements match the rows of every tenant."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: Any, *arguments: Any, **options: Any) -> Any:
        return self._connection.execute(without_tenant(statement), *arguments, **options)


def without_tenant(statement: Any) -> Any:
    """The statement without its comparisons of a column `tenant_id` with a value."""

    def replace(element: Any, **_: Any) -> Any:
        if isinstance(element, BinaryExpression) and element.operator is operators.eq:
            compared = getattr(element.left, "name", "") == "tenant_id"
            return sa.true() if compared and not isinstance(element.right, sa.Column) else None
        return None

    return visitors.replacement_traverse(statement, {}, replace)


def plant(target: str) -> None:
    """Make the function lose its filter. To be called before anything else imports it by name."""
    module_name, _, name = target.partition(":")
    module = importlib.import_module(module_name)
    sound: Callable[..., Any] = getattr(module, name)

    def faulty(connection: Connection, *arguments: Any, **options: Any) -> Any:
        return sound(_Unfiltered(connection), *arguments, **options)

    setattr(module, name, faulty)


if __name__ == "__main__":
    plant(os.environ["PLANT"])
    from kgents.cli.main import main

    main()
