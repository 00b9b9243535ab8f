"""A lint: every query says whose rows it touches.

Every table has a tenant id. A `select`, `update` or `delete` is scoped when it compares a table's `c.tenant_id` with a
value, or asks whether it is `in_` some: in its own statement, in a condition that it takes from a name, or wherever the
name that keeps the query is used.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

_QUERIES = {"select", "update", "delete"}
_UNOWNED = {"processes", "schema_support", "metadata", "METERS"}  # kgents' own rows, and what is no table


@dataclass(frozen=True, order=True, slots=True)
class Unscoped:
    """A query without a tenant: the module that holds it, the function that makes or uses it, and the line."""

    module: str
    function: str
    line: int


def unscoped_queries(module: str, source: str) -> list[Unscoped]:
    """The queries of a module that name no tenant."""
    tree = ast.parse(source)
    tables = _imported_tables(tree)
    if not tables:
        return []
    constants = _unscoped_constants(tree, tables)
    found = []
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            parts = list(_parts(function))
            open_lines = [
                part.lineno
                for index, part in enumerate(parts)
                if _has_query(part, tables) and not _is_scoped_somewhere(part, parts, index)
            ]
            for name in sorted(constants):
                uses = [index for index, part in enumerate(parts) if name in _loads(part)]
                if uses and not any(_is_scoped(parts[index], parts[:index]) for index in uses):
                    open_lines.append(parts[uses[0]].lineno)
            found += [Unscoped(module, function.name, line) for line in open_lines]
    return sorted(set(found))


Part = ast.stmt | ast.expr


def _imported_tables(tree: ast.Module) -> set[str]:
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "kgents.store.tables"
        for alias in node.names
    } - _UNOWNED


def _unscoped_constants(tree: ast.Module, tables: set[str]) -> set[str]:
    constants: set[str] = set()
    parts = list(_parts(tree))
    for index, part in enumerate(parts):
        name = _kept_as(part)
        if name and (_has_query(part, tables) or constants & _loads(part)) and not _is_scoped(part, parts[:index]):
            constants.add(name)
    return constants


def _parts(scope: ast.AST) -> Iterator[Part]:
    """The simple statements of a scope and the expressions in the heads of its blocks, in order; no inner function."""
    for child in ast.iter_child_nodes(scope):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.arguments):
            continue
        if isinstance(child, ast.expr) or (isinstance(child, ast.stmt) and not hasattr(child, "body")):
            yield child
        else:
            yield from _parts(child)


def _has_query(part: Part, tables: set[str]) -> bool:
    for node in ast.walk(part):
        if isinstance(node, ast.Call) and _called(node) in _QUERIES and _is_sqlalchemy(node):
            mentioned = _names(node.args)
            if mentioned & tables or not mentioned & _UNOWNED:
                return True
    return False


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _is_sqlalchemy(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) or (
        isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") in {"sa", "sqlalchemy"}
    )


def _is_scoped_somewhere(part: Part, parts: Sequence[Part], index: int) -> bool:
    if _is_scoped(part, parts[:index]):
        return True
    name = _kept_as(part)
    return name is not None and any(
        name in _loads(later) and _is_scoped(later, parts[:place])
        for place, later in enumerate(parts[index + 1 :], index + 1)
    )


def _is_scoped(part: Part, earlier: Sequence[Part]) -> bool:
    """Whether it compares a tenant id, itself or by a condition that an earlier part has given a name."""
    if _compares_tenant(part):
        return True
    loaded = _loads(part)
    return any(_kept_as(before) in loaded and _compares_tenant(before) for before in earlier)


def _compares_tenant(part: Part) -> bool:
    for node in ast.walk(part):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq):
            sides = [_is_tenant_column(side) for side in (node.left, node.comparators[0])]
            if sides.count(True) == 1:  # two columns are a join, not a filter
                return True
        elif isinstance(node, ast.Call) and _called(node) == "in_" and any(map(_is_tenant_column, ast.walk(node.func))):
            return True
    return False


def _is_tenant_column(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr == "tenant_id"
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "c"
    )


def _kept_as(part: Part) -> str | None:
    """The name that keeps an expression which was not executed."""
    if not isinstance(part, ast.Assign | ast.AnnAssign) or part.value is None:
        return None
    if any(isinstance(node, ast.Call) and _called(node) == "execute" for node in ast.walk(part.value)):
        return None
    target = part.targets[0] if isinstance(part, ast.Assign) else part.target
    return target.id if isinstance(target, ast.Name) else None


def _loads(part: Part) -> set[str]:
    return {node.id for node in ast.walk(part) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _names(nodes: Iterable[ast.AST]) -> set[str]:
    return {node.id for root in nodes for node in ast.walk(root) if isinstance(node, ast.Name)}
