"""How much work it is to check a value against a JSON schema.

Schemas are a tenant's, and a small one can take a validator hours: `allOf` of two references, 40 levels deep, is 2^40
visits. The count here has the same size but is worked out once for each pair of a subschema and a part of the value.
A visit that looks at a whole text, list or map counts for as many as take that long.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
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
_POINTER = re.compile(r"#(/.*)?", re.DOTALL)
_OWN_MARKS = re.compile("%(2f|7e)", re.IGNORECASE)  # "/" and "~": whether they part steps is read in two ways
_DRAFTS = re.compile(r"https?://json-schema\.org/draft(-0[3-7]|/2019-09|/2020-12)/schema#?")
_BACKTRACKING = 200  # visits that a regular expression takes that goes back
_TEXT = 1000  # characters of a text that are looked at in the time of a visit
_LIST = 200  # bytes of JSON that are compared in that time
_NAMES = 100  # names that are looked up in that time
_UNEVALUATED = 3  # how often what is beside `unevaluatedProperties` or `unevaluatedItems` is visited


class Patterns(NamedTuple):
    """How many regular expressions there are, and how long they are together."""

    number: int = 0
    characters: int = 0


_OF_A_SCHEMA = Patterns(30, 2_000)
_OF_TOOLS = Patterns(100, 5_000)


def check_keywords(schema: Any) -> None:
    """Raise Unprocessable (`schema-invalid`) for an unknown dialect, references other than local JSON pointers, and too
    many patterns. Takes what is no schema at all, too.
    """
    _check_patterns("The JSON schema has", patterns_in(schema), _OF_A_SCHEMA)
    dialect = str(schema.get("$schema", "")) if isinstance(schema, Mapping) else ""
    if dialect and not _DRAFTS.fullmatch(dialect):
        raise Unprocessable(
            "The JSON schema's $schema is none of json-schema.org's. Leave it out: each is read as draft 2020-12.",
            code="schema-invalid",
        )
    pending = [schema]
    seen: set[int] = set()
    while pending:
        node = pending.pop()
        if not isinstance(node, Mapping) or id(node) in seen:
            continue
        seen.add(id(node))
        strange = [keyword for keyword in _ELSEWHERE if keyword in node] + (
            ["$id"] if "$id" in node and node is not schema else []
        )
        if strange or not _is_local(schema, str(node.get("$ref", "#"))):
            raise Unprocessable(
                f"The JSON schema uses {strange[0] if strange else '$ref to another document'}, which is not "
                "supported. Refer to subschemas as `#/$defs/...` only.",
                code="schema-invalid",
            )
        if "$ref" in node:  # its target may be where no schema is looked for
            pending.append(target(schema, str(node["$ref"])))
        pending.extend(_children(node))


def check_tools_patterns(patterns: Patterns) -> None:
    """Raise Unprocessable (`schema-invalid`) when the schemas of tools have too many patterns together."""
    _check_patterns("The tools' JSON schemas together have", patterns, _OF_TOOLS)


def patterns_in(schemas: Any) -> Patterns:
    """The patterns of a schema, or of any JSON that holds schemas. What only looks like one is counted, too: a
    reference may lead there.
    """
    number = characters = 0
    pending = [schemas]
    while pending:
        node = pending.pop()
        if isinstance(node, Mapping):
            found = [node.get("pattern"), *_names(node.get("patternProperties"))]
            lengths = [len(pattern) for pattern in found if isinstance(pattern, str)]
            number += len(lengths)
            characters += sum(lengths)
        pending.extend(_parts(node))
    return Patterns(number, characters)


def _check_patterns(whose: str, patterns: Patterns, most: Patterns) -> None:
    if patterns.number > most.number or patterns.characters > most.characters:
        raise Unprocessable(
            f"{whose} {patterns.number} regular expressions with {patterns.characters} characters; at most "
            f"{most.number} with {most.characters} are allowed. Use fewer or shorter ones.",
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
        self._names: dict[int, int] = {}
        self._targets: dict[str, Any] = {}
        self._work = 0  # what counting takes, which is never more than the count
        self._counts: dict[tuple[int, int], int] = {}

    def count(self, schema: Any, value: Any) -> int:
        if not isinstance(schema, Mapping):
            return self._charged(1)
        key = (id(schema), id(value))
        known = self._counts.get(key)
        if known is not None:
            self._charged(1)
            return known
        self._counts[key] = 1  # a reference to itself with the same value is visited once
        total = self._charged(self._own(schema, value))
        again = _UNEVALUATED if "unevaluatedProperties" in schema or "unevaluatedItems" in schema else 1
        for child, part in self._next(schema, value):
            total += self.count(child, part) * (again if part is value else 1)
            if total > self._limit:
                raise _TooManyError
        self._counts[key] = total
        return total

    def _charged(self, work: int) -> int:
        self._work += work
        if self._work > self._limit:
            raise _TooManyError
        return work

    def _own(self, schema: Mapping[str, Any], value: Any) -> int:
        """What a visit itself counts for."""
        own = 1 + self._compared(schema, value)
        if isinstance(value, str):
            looks = ("pattern" in schema) + ("format" in schema)
            return own + looks * (len(value) // _TEXT) + ("pattern" in schema) * self._pattern
        if isinstance(value, list) and "uniqueItems" in schema:
            return own + self._size(value) // _LIST
        if isinstance(value, dict):
            own += self._looked_up(schema, value) // _NAMES
            if schema.get("patternProperties"):
                once = len(value) * self._pattern + self._length_of_names(value) // _TEXT
                own += len(schema["patternProperties"]) * once
        return own

    def _compared(self, schema: Mapping[str, Any], value: Any) -> int:
        """What it takes to compare a value with those that the schema gives. One without parts is found by its kind."""
        if not isinstance(value, dict | list):
            return len(schema.get("enum", ())) // _TEXT
        return sum(self._size(schema[keyword]) // _LIST for keyword in ("const", "enum") if keyword in schema)

    def _looked_up(self, schema: Mapping[str, Any], value: dict[str, Any]) -> int:
        """How many names are looked up in an object."""
        dependent = schema.get("dependentRequired", {})
        return (
            min(len(schema.get("properties", ())), len(value))
            + min(len(schema.get("required", ())), len(value) + 1)  # the first that is missing is the last looked up
            + len(dependent)
            + sum(len(dependent[name]) for name in _in_both(dependent, value))
        )

    def _size(self, value: Any) -> int:
        known = self._sizes.get(id(value))
        if known is None:
            known = self._sizes[id(value)] = len(orjson.dumps(value))
        return known

    def _length_of_names(self, value: dict[str, Any]) -> int:
        known = self._names.get(id(value))
        if known is None:
            known = self._names[id(value)] = sum(map(len, value))
        return known

    def _target(self, reference: str) -> Any:
        if reference not in self._targets:
            self._targets[reference] = target(self._root, reference)
        return self._targets[reference]

    def _next(self, schema: Mapping[str, Any], value: Any) -> Iterator[tuple[Any, Any]]:
        if "$ref" in schema:
            yield self._target(str(schema["$ref"])), value
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
        properties = schema.get("properties", {})
        for name in _in_both(properties, value):
            yield properties[name], value[name]
        others = [schema[keyword] for keyword in _PER_MEMBER if keyword in schema]
        others += schema.get("patternProperties", {}).values()
        for child in others:
            yield from ((child, member) for member in value.values())
        if "propertyNames" in schema:
            yield from ((schema["propertyNames"], name) for name in value)


def _in_both(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """The names that two objects have in common, in the time that the smaller takes."""
    fewer, more = (one, other) if len(one) < len(other) else (other, one)
    return (name for name in fewer if name in more)


def _children(schema: Mapping[str, Any]) -> Iterator[Any]:
    for keyword in (*_SAME_VALUE, *_PER_MEMBER, *_PER_ITEM, "propertyNames", "contentSchema"):
        if keyword in schema:
            yield schema[keyword]
    for keyword in (*_SAME_VALUE_LISTS, "prefixItems", *_MAPS):
        yield from _parts(schema.get(keyword))


def _parts(node: Any) -> Iterable[Any]:
    if isinstance(node, Mapping):
        return node.values()
    return node if isinstance(node, list) else ()


def _names(node: Any) -> Iterable[Any]:
    return node if isinstance(node, Mapping) else ()
