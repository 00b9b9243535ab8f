"""JSON Schema (draft 2020-12): checking values against a tenant's schema, and making the smallest value of one.

Schemas and values both come from outside, so checking is bounded: it never fetches a remote `$ref`, and a `pattern`
that would backtrack without end counts as not matched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache, partial
from itertools import islice
from typing import Any

import jsonschema_rs
import orjson

from kgents.agents.models.json_bounds import check_keywords, target, visits
from kgents.errors import Unprocessable

_MAX_COMPILED = 1_000_000  # bytes of a regular expression: `[^\s]{1,255}` needs half of it, and milliseconds
_LINEAR = jsonschema_rs.RegexOptions(size_limit=_MAX_COMPILED)
_BACKTRACKING = jsonschema_rs.FancyRegexOptions(backtrack_limit=20_000, size_limit=_MAX_COMPILED)
MAX_SCHEMA_BYTES = 65_536
_MAX_DEPTH = 64
_MAX_VALUES = 10_000
_MAX_LENGTH = 10_000
_MAX_MADE = 200_000  # characters, and parts of schemas merged
_MAX_INTEGER = 2**53  # beyond it a float has no fraction, and orjson writes no integer beyond 64 bits
_MAX_PATH = 100
_MAX_VISITS = 50_000
_EXPLAINED_VISITS = 2_000  # finding out what is wrong costs far more than finding out that it is


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raise Unprocessable (`schema-invalid`) unless `schema` is a JSON schema that can be used offline."""
    _validator(schema)


def complaint(schema: Mapping[str, Any], value: Any) -> str | None:
    """What first keeps `value` from matching `schema`, as `at $.a.b: ...` without the value itself; None if it matches.

    Raises Unprocessable (`schema-invalid`) when the schema can't be used.
    """
    validator, backtracks = _validator(schema)
    try:
        orjson.dumps(value)  # refuses what is nested too deeply for the validator's recursion
        work = visits(schema, value, _MAX_VISITS, backtracks=backtracks)
        if work >= _MAX_VISITS:
            return "at $: checking it against the schema takes too long; a simpler schema is needed"
        if validator.is_valid(value):
            return None
        if work > _EXPLAINED_VISITS:
            return "at $: it does not match the schema"
        error = next(iter(validator.iter_errors(value)))
    except (TypeError, ValueError):
        return "at $: it is nested too deeply or holds a number out of range"
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
    return f"at ${path[:_MAX_PATH]}: {_rule(error)}"


def _rule(error: jsonschema_rs.ValidationError) -> str:
    kind = error.kind
    match kind:
        case jsonschema_rs.ValidationErrorKind.Required():
            return f"{kind.property!r} is required"
        case jsonschema_rs.ValidationErrorKind.AdditionalProperties():
            return f"{', '.join(map(repr, kind.unexpected))} is not allowed"
        case jsonschema_rs.ValidationErrorKind.Type():
            return f"it must be of type {' or '.join(kind.types)}"
        case jsonschema_rs.ValidationErrorKind.Enum():
            return f"it must be one of {orjson.dumps(kind.options).decode()[:300]}"
    return f"the schema's {kind.name!r} is not met"


def _validator(schema: Mapping[str, Any]) -> tuple[Any, bool]:
    try:
        return _compiled(orjson.dumps(schema))
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, TypeError, ValueError) as error:
        reason = _reason(error)
        raise Unprocessable(
            f"The JSON schema can't be used: {reason}. Use draft 2020-12 with local references (`#/$defs/...`) only.",
            code="schema-invalid",
        ) from None


def _reason(error: Exception) -> str:
    kind = getattr(error, "kind", None)
    if isinstance(kind, jsonschema_rs.ValidationErrorKind.Format) and kind.format == "regex":
        said = str(getattr(error, "instance", ""))[:200]
        return f"{said!r} is no regular expression, or too large a one when its repeats are written out"
    return str(error).partition("\n")[0][:300]


@lru_cache(maxsize=32)
def _compiled(schema: bytes) -> tuple[Any, bool]:
    """The validator, and whether its regular expressions go back: those with lookaround or references to groups do."""
    if len(schema) > MAX_SCHEMA_BYTES:
        raise Unprocessable(
            f"The JSON schema is {len(schema)} bytes long; at most {MAX_SCHEMA_BYTES} are allowed.",
            code="schema-invalid",
        )
    loaded = orjson.loads(schema)
    make = partial(jsonschema_rs.Draft202012Validator, loaded, offline=True, validate_formats=True)
    check_keywords(loaded)
    try:
        return make(pattern_options=_LINEAR), False
    except jsonschema_rs.ValidationError:
        return make(pattern_options=_BACKTRACKING), True


def smallest(schema: Mapping[str, Any]) -> Any:
    """The smallest value of `schema` that is easily found, always the same one. It may miss a `pattern` or a `not`."""
    try:
        return _Builder(schema).value(schema, 0)
    except (OverflowError, ValueError):  # bounds beyond what a number holds, and values that are too large to make
        return None


_FORMATS = {
    "date-time": "2000-01-01T00:00:00Z",
    "date": "2000-01-01",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "a@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_KEYWORD_TYPES = {
    "properties": "object",
    "required": "object",
    "items": "array",
    "prefixItems": "array",
    "minLength": "string",
    "format": "string",
    "minimum": "number",
    "maximum": "number",
}


class _Builder:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._values = 0
        self._made = 0
        self._flats: dict[int, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
        self._targets: dict[str, Any] = {}

    def _make(self, count: int) -> None:
        self._made += count
        if self._made > _MAX_MADE:
            raise ValueError("too large")

    def value(self, schema: Any, depth: int) -> Any:
        self._values += 1
        if not isinstance(schema, Mapping) or depth > _MAX_DEPTH or self._values > _MAX_VALUES:
            return None
        schema = self._flat(schema)
        if "const" in schema:
            return self._given(schema["const"])
        if schema.get("enum"):
            return self._given(schema["enum"][0])
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = kind[0] if kind else None
        if kind is None:
            kind = next((kind for keyword, kind in _KEYWORD_TYPES.items() if keyword in schema), None)
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                length = _count(schema, "minLength")
                self._make(length)
                return _FORMATS.get(schema.get("format", ""), "").ljust(length, "x")
            case "integer" | "number":
                return _number(schema, whole=kind == "integer")
            case "boolean":
                return False
        return None

    def _given(self, value: Any) -> Any:
        self._make(len(orjson.dumps(value)))
        return value

    def _flat(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """`schema` with its reference, its `allOf`, and the first of its `anyOf` and `oneOf` merged in."""
        known = self._flats.get(id(schema))
        if known is None:  # the schema is kept with it, so that its id stays its own
            known = self._flats[id(schema)] = (schema, self._merged(schema))
        return known[1]

    def _merged(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        for _ in range(_MAX_DEPTH):
            parts = [*schema.get("allOf", ()), *schema.get("anyOf", ())[:1], *schema.get("oneOf", ())[:1]]
            if "$ref" in schema:
                parts.append(self._target(str(schema["$ref"])))
            if not parts:
                break
            self._make(len(schema) + len(parts))
            merged = {key: value for key, value in schema.items() if key not in ("$ref", "allOf", "anyOf", "oneOf")}
            for part in parts:
                if isinstance(part, Mapping):
                    self._make(_merge(merged, part))
            schema = merged
        return schema

    def _target(self, reference: str) -> Any:
        if reference not in self._targets:
            self._targets[reference] = target(self._root, reference)
        return self._targets[reference]

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties")
        names = list(schema.get("required", ()))
        missing = max(0, _count(schema, "minProperties") - len(names))
        required = set(names)
        names += islice((name for name in properties if name not in required), missing)
        self._make(sum(map(len, names)) + len(names))
        return {name: self.value(properties.get(name, others), depth + 1) for name in names}

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        length = _count(schema, "minItems")
        values = [self.value(each, depth + 1) for each in schema.get("prefixItems", ())[:length]]
        if missing := length - len(values):
            item = self.value(schema.get("items"), depth + 1)
            self._make((missing - 1) * len(orjson.dumps(item)))
            values += [item] * missing
        return values


def _count(schema: Mapping[str, Any], keyword: str) -> int:
    """What a keyword of lengths says, bounded. JSON Schema takes `3.0` for a length, too."""
    return int(min(schema.get(keyword, 0), _MAX_LENGTH))


def _merge(into: dict[str, Any], part: Mapping[str, Any]) -> int:
    """Add what `part` says and `into` does not; answers how many parts of both that took."""
    work = len(part)
    for key, value in part.items():
        mine = into.get(key)
        if isinstance(mine, dict) and isinstance(value, Mapping):
            into[key] = {**value, **mine}
        elif key == "required" and isinstance(mine, list):
            into[key] = list(dict.fromkeys([*mine, *value]))
        elif key in ("allOf", "anyOf", "oneOf") and isinstance(mine, list):
            present = {id(each) for each in mine}
            into[key] = [*mine, *(each for each in value if id(each) not in present)]
        else:
            into.setdefault(key, value)
            continue
        work += len(mine) + len(value)
    return work


def _number(schema: Mapping[str, Any], *, whole: bool) -> int | float:
    """The number nearest to 0 that the bounds allow."""
    step = schema.get("multipleOf", 1)
    lowest = schema.get("minimum", -math.inf)
    if "exclusiveMinimum" in schema:
        lowest = max(lowest, schema["exclusiveMinimum"] + step)
    highest = schema.get("maximum", math.inf)
    if "exclusiveMaximum" in schema:
        highest = min(highest, schema["exclusiveMaximum"] - step)
    if lowest > 0:
        nearest = math.ceil(lowest / step) * step if whole or "multipleOf" in schema else lowest
    elif highest < 0:
        nearest = math.floor(highest / step) * step if whole or "multipleOf" in schema else highest
    else:
        nearest = 0
    if abs(nearest) > _MAX_INTEGER:
        return float(nearest)
    return int(nearest) if whole else nearest
