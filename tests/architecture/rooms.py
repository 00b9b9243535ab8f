"""Lints about what a room keeps to itself."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator


def imports(module: str, source: str) -> Iterator[str]:
    """The dotted names that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def foreign_repositories(module: str, source: str) -> list[str]:
    """The repositories of other rooms that a module imports."""
    room = module.split("/")[0]
    parts = [name.split(".") for name in imports(module, source)]
    return [".".join(name) for name in parts if name[0] == "kgents" and name[2:3] == ["repository"] and name[1] != room]


def beyond_the_standard_library(module: str, source: str) -> list[str]:
    """What a module imports that is neither Python's own nor of what everyone may import."""
    everyone = ("kgents.errors", "kgents.ids", "kgents.clock")
    return [
        name
        for name in imports(module, source)
        if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith(everyone)
    ]
