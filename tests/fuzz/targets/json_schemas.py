"""A tenant's JSON schema and a value for it: refused as unusable, or checked within its bounds."""

from __future__ import annotations

import orjson

from kgents.agents.models.json_bounds import visits
from kgents.agents.models.json_schema import check_schema, complaint, smallest
from kgents.errors import Unprocessable
from tests.fuzz.values import json_of

_WORDS = [
    *(
        "type",
        "properties",
        "required",
        "items",
        "prefixItems",
        "additionalProperties",
        "anyOf",
        "allOf",
        "oneOf",
        "not",
    ),
    *("$ref", "$defs", "#/$defs/a", "#", "#/properties/a", "#/allOf/0", "#/allOf/00", "a", "b", "enum", "const", "if"),
    *(
        "then",
        "else",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "multipleOf",
        "minLength",
        "minItems",
        "pattern",
        "^a+$",
    ),
    *("object", "array", "string", "integer", "number", "boolean", "null", "format", "date-time", "patternProperties"),
    *("dependentSchemas", "propertyNames", "contains", "unevaluatedProperties", "$dynamicRef", "$id", "minProperties"),
]

SEEDS = [
    b'[{"type":"object","properties":{"a":{"type":"integer","minimum":3}},"required":["a"]},{"a":3}]',
    b'[{"$ref":"#/$defs/a","$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"},{"type":"string"}]}}},"x"]',
    b'[{"allOf":[{"$ref":"#/$defs/0"},{"$ref":"#/$defs/0"}],"$defs":{"0":{"minLength":1,"pattern":"^(a+)+$"}}},"aaaa"]',
    b'[{"type":"array","prefixItems":[true,{"const":1}],"items":false,"minItems":2},[1,1]]',
    b'[{"type":"object","properties":{"a":{"type":"array","minItems":1.0}},"minProperties":1.0},{"a":[1]}]',
    b'[{"type":"array","minItems":2.0,"items":{"type":"string","minLength":3.0}},["xxx","xxx"]]',
    b'[{"type":"integer","minimum":1e300},1e300]',
    b"\x04\x02\x05\x04" + bytes(range(64)),
    b'],{:e\x01?eee\x02::::e\x01?r"a":""3}]]',
]


def check(data: bytes) -> None:
    """A schema, a value for it, and the smallest value of it."""
    pair = json_of(data, _WORDS)
    schema, value = pair if isinstance(pair, list) and len(pair) == 2 else (pair, pair)
    if not isinstance(schema, dict):
        return
    try:
        check_schema(schema)
    except Unprocessable:
        return
    said = complaint(schema, value)
    assert said is None or said.startswith("at $")
    assert 1 <= visits(schema, value, 1000, backtracks=True) <= 1000
    orjson.dumps(smallest(schema))
