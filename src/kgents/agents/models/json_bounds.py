"""How much work it is to check a value against a JSON schema.

Schemas are a tenant's, and a small one can take a validator hours: `allOf` of two references, 40 levels deep, is 2^40
visits. The count here has the same size but is worked out once for each pair of a subschema and a part of the value.
A visit that looks at a whole text or list counts for as many as take that long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import orjson

from kgents.errors import Unprocessable

_SAME_VALUE = ("not", "if", "then", "else")
_SAME_VALUE_LISTS = ("allOf", "anyOf", "oneOf")
_PER_MEMBER = ("additionalProperties", "unevaluatedProperties")
_PER_ITEM = ("items", "contains", "unevaluatedItems")
_MAPS = ("properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions")
_PER_DEPENDENCY = ("dependentSchemas", "dependencies")
_ELSEWHERE = ("$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "$recursiveAnchor")
_MAX_PATTERNS = 30
_POINTER = re.compile(r"#(/.*)?", re.DOTALL)
_OWN_MARKS = re.compile("%(2f|7e)", re.IGNORECASE)  # "/" and "~": whether they part steps is read in two ways
_DRAFTS = re.compile(r"https?://json-schema\.org/draft(-0[3-7]|/2019-09|/2020-12)/schema#?")
_BACKTRACKING = 200  # visits that a regular expression takes that goes back
_TEXT = 1000  # characters of a text that are looked at in the time of a visit
_LIST = 200  # bytes of a list's JSON that are compared in that time


def check_keywords(schema: Any) -> None:
    """Raise Unprocessable (`schema-invalid`) for an unknown dialect, references other than local JSON pointers, and too
    many patterns.
    """
    dialect = str(schema.get("$schema", "")) if isinstance(schema, Mapping) else ""
    if dialect and not _DRAFTS.fullmatch(dialect):
        raise Unprocessable(
            "The JSON schema's $schema is none of json-schema.org's. Leave it out: each is read as draft 2020-12.",
            code="schema-invalid",
        )
    pending = [(schema, True)]
    patterns = 0
    while pending:
        node, root = pending.pop()
        if not isinstance(node, Mapping):
            continue
        strange = [keyword for keyword in _ELSEWHERE if keyword in node] + (
            ["$id"] if "$id" in node and not root else []
        )
        if strange or not _is_local(schema, str(node.get("$ref", "#"))):
            raise Unprocessable(
                f"The JSON schema uses {strange[0] if strange else '$ref to another document'}, which is not "
                "supported. Refer to subschemas as `#/$defs/...` only.",
                code="schema-invalid",
            )
        patterns += ("pattern" in node) + len(node.get("patternProperties", ()))
        pending.extend((child, False) for child in _children(node))
    if patterns > _MAX_PATTERNS:
        raise Unprocessable(
            f"The JSON schema has {patterns} regular expressions; at most {_MAX_PATTERNS} are allowed.",
            code="schema-invalid",
        )


def _is_local(root: Any, reference: str) -> bool:
    return (
        bool(_POINTER.fullmatch(reference)) and not _OWN_MARKS.search(reference) and target(root, reference) is not None
    )


def target(root: Any, reference: str) -> Any:
    """The subschema of `root` that a local reference names (RFC 6901, section 6), or None."""
    found: Any = root
    for step in unquote(reference.removeprefix("#")).split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping):
            found = found.get(step)
        elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        else:
            return None
    return found


def visits(schema: Any, value: Any, limit: int, *, backtracks: bool) -> int:
    """How many times a plain validator visits a subschema with a part of `value`; `limit` when it is that or more.
    `backtracks` says that the regular expressions may need more time than their texts are long.
    """
    try:
        return min(limit, _Counter(schema, limit, _BACKTRACKING if backtracks else 0).count(schema, value))
    except (_TooManyError, RecursionError):
        return limit


class _TooManyError(Exception):
    """The count is over its limit."""


class _Counter:
    def __init__(self, root: Any, limit: int, pattern: int) -> None:
        self._root = root
        self._limit = limit
        self._pattern = pattern
        self._sizes: dict[int, int] = {}
        self._pairs = 0
        self._counts: dict[tuple[int, int], int] = {}

    def count(self, schema: Any, value: Any) -> int:
        if not isinstance(schema, Mapping):
            return 1
        key = (id(schema), id(value))
        known = self._counts.get(key)
        if known is not None:
            return known
        self._pairs += 1
        self._counts[key] = 1  # a reference to itself with the same value is visited once
        total = self._own(schema, value)
        for child, part in self._next(schema, value):
            total += self.count(child, part)
            if total > self._limit:
                break
        if total > self._limit or self._pairs > self._limit:
            raise _TooManyError
        self._counts[key] = total
        return total

    def _own(self, schema: Mapping[str, Any], value: Any) -> int:
        """What a visit itself counts for."""
        if isinstance(value, str):
            looks = ("pattern" in schema) + ("format" in schema)
            return 1 + looks * (len(value) // _TEXT) + ("pattern" in schema) * self._pattern
        if isinstance(value, list) and "uniqueItems" in schema:
            return 1 + self._size(value) // _LIST
        if isinstance(value, dict) and "patternProperties" in schema:
            once = len(value) * self._pattern + sum(map(len, value)) // _TEXT
            return 1 + len(schema["patternProperties"]) * once
        return 1

    def _size(self, value: list[Any]) -> int:
        known = self._sizes.get(id(value))
        if known is None:
            known = self._sizes[id(value)] = len(orjson.dumps(value))
        return known

    def _next(self, schema: Mapping[str, Any], value: Any) -> Iterator[tuple[Any, Any]]:
        if "$ref" in schema:
            yield target(self._root, str(schema["$ref"])), value
        for keyword in _SAME_VALUE:
            if keyword in schema:
                yield schema[keyword], value
        for keyword in _SAME_VALUE_LISTS:
            for child in schema.get(keyword, ()):
                yield child, value
        if isinstance(value, dict):
            yield from self._members(schema, value)
        elif isinstance(value, list):
            for keyword in _PER_ITEM:
                if keyword in schema:
                    yield from ((schema[keyword], item) for item in value)
            yield from zip(schema.get("prefixItems", ()), value, strict=False)

    def _members(self, schema: Mapping[str, Any], value: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
        for keyword in _PER_DEPENDENCY:
            for child in schema.get(keyword, {}).values():
                yield child, value
        for name, child in schema.get("properties", {}).items():
            if name in value:
                yield child, value[name]
        others = [schema[keyword] for keyword in _PER_MEMBER if keyword in schema]
        others += schema.get("patternProperties", {}).values()
        for child in others:
            yield from ((child, member) for member in value.values())
        if "propertyNames" in schema:
            yield from ((schema["propertyNames"], name) for name in value)


def _children(schema: Mapping[str, Any]) -> Iterator[Any]:
    for keyword in (*_SAME_VALUE, *_PER_MEMBER, *_PER_ITEM, "propertyNames", "contentSchema"):
        if keyword in schema:
            yield schema[keyword]
    for keyword in (*_SAME_VALUE_LISTS, "prefixItems"):
        yield from schema.get(keyword, ())
    for keyword in _MAPS:
        yield from schema.get(keyword, {}).values()
