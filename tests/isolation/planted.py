"""`kgents` with one fault: what PLANT names has lost its tenant filter: functions and bulk lookups, as module:name with
commas between. A write is planted with the read before it, which else would find nothing of another tenant's to write.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BinaryExpression

from kgents.store.bulk import Lookup


class _Unfiltered:
    """A connection whose statements match the rows of every tenant."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: Any, *arguments: Any, **options: Any) -> Any:
        return self._connection.execute(without_tenant(statement), *arguments, **options)


def without_tenant(statement: Any) -> Any:
    """The statement without its comparisons of a column `tenant_id` with a value, or with several."""

    def replace(element: Any, **_: Any) -> Any:
        if isinstance(element, BinaryExpression) and element.operator in (operators.eq, operators.in_op):
            compared = getattr(element.left, "name", "") == "tenant_id"
            return sa.true() if compared and not isinstance(element.right, sa.Column) else None
        return None

    return visitors.replacement_traverse(statement, {}, replace)


def plant(targets: str) -> None:
    """Make the functions lose their filters. To be called before anything else imports them by name."""
    for target in targets.split(","):
        _plant(target)


def _plant(target: str) -> None:
    module_name, _, name = target.partition(":")
    module = importlib.import_module(module_name)
    sound: Callable[..., Any] = getattr(module, name)
    if isinstance(sound, Lookup):
        sound._lists = {given: column for given, column in sound._lists.items() if column.key != "tenant_id"}
        return

    def faulty(connection: Connection, *arguments: Any, **options: Any) -> Any:
        return sound(_Unfiltered(connection), *arguments, **options)

    setattr(module, name, faulty)


if __name__ == "__main__":
    plant(os.environ["PLANT"])
    from kgents.cli.main import main

    main()
