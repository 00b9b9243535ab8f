"""Checking values against a tenant's JSON schema, and the smallest value of one."""

from __future__ import annotations

import time
from typing import Any

import jsonschema_rs
import orjson
import pytest

from kgents.agents.models import json_bounds, json_schema
from kgents.agents.models.json_bounds import visits
from kgents.agents.models.json_schema import check_schema, complaint, smallest
from kgents.errors import Unprocessable


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strin"},
        {"pattern": "("},
        {"$ref": "http://127.0.0.1:9/schema"},
        {"$ref": "file:///etc/passwd"},
        {"$schema": "http://127.0.0.1:9/meta", "type": "object"},
        {"properties": 3},
        {"const": object()},
        {"enum": ["x" * 70_000]},
        {"allOf": [{"pattern": f"a{n}"} for n in range(31)]},
        {"allOf": [{"$ref": f"#/default/{n}"} for n in range(31)], "default": [{"pattern": "a"}] * 31},
        {"patternProperties": {"a" * 1000: {}, "b" * 1001: {}}},
        {"patternProperties": 3},
        {"allOf": {"a": {"pattern": "a"}}},
        {"pattern": "(a{1,1000}){1,1000}"},
        {"pattern": r"\p{L}{40}"},
        {"$ref": "#/default", "default": {"allOf": [{"$dynamicRef": "#/default"}]}},
        {"$ref": "#name", "$defs": {"a": {"$anchor": "name"}}},
        {"properties": {"a": {"$id": "http://127.0.0.1/x"}}},
        {"items": {"$dynamicRef": "#/$defs/a"}, "$defs": {"a": {}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "$defs": 5},
        {"$schema": "http://json-schema.org/draft-07/schema#", "dependentSchemas": [1]},
        {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]},
        {"$ref": "#/$defs/a%2Fb", "$defs": {"a": {"b": {}}, "a/b": {}}},
    ],
)
def test_a_schema_that_cannot_be_used_offline_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(Unprocessable) as raised:
        check_schema(schema)
    assert raised.value.code == "schema-invalid"


@pytest.mark.parametrize(
    ("schema", "value", "said"),
    [
        ({"type": "object", "required": ["a"]}, {}, "at $: 'a' is required"),
        (
            {"properties": {"a": {"items": {"type": "integer"}}}},
            {"a": [1, "x"]},
            "at $.a[1]: it must be of type integer",
        ),
        ({"properties": {"a": {}}, "additionalProperties": False}, {"b": 1}, "at $: 'b' is not allowed"),
        ({"enum": ["a", 1]}, "c", 'at $: it must be one of ["a",1]'),
        ({"minimum": 3}, 2, "at $: the schema's 'minimum' is not met"),
    ],
)
def test_a_complaint_says_where_and_which_rule(schema: dict[str, Any], value: Any, said: str) -> None:
    assert complaint(schema, value) == said


def test_a_complaint_does_not_repeat_the_value() -> None:
    assert "secret" not in (complaint({"properties": {"a": {"pattern": "^x"}}}, {"a": "secret"}) or "")


def test_what_matches_has_no_complaint() -> None:
    assert complaint({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, 3) is None


def test_a_pattern_that_backtracks_without_end_is_stopped() -> None:
    started = time.thread_time()  # of the processor: other tests run beside
    said = complaint({"pattern": r"^(?=a)(a|aa|a?)+\1$"}, "a" * 5000 + "!")
    assert said is not None
    assert time.thread_time() - started < 2


@pytest.mark.parametrize("schema", [{"items": {"$ref": "#"}}, {"type": "array"}, {"const": [[]]}])
@pytest.mark.parametrize("depth", [300, 200_000])
def test_a_value_nested_too_deeply_is_a_complaint(schema: dict[str, Any], depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    assert complaint(schema, value) == "at $: it is nested too deeply or holds a number out of range"


@pytest.mark.parametrize("depth", [300, 200_000])
def test_a_schema_nested_too_deeply_is_refused(depth: int) -> None:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"not": schema}
    with pytest.raises(Unprocessable):
        check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({}, None),
        ({"type": "object"}, {}),
        ({"type": "string"}, ""),
        ({"type": "string", "minLength": 3}, "xxx"),
        ({"type": "string", "format": "date"}, "2000-01-01"),
        ({"type": ["null", "string"]}, None),
        ({"type": "boolean"}, False),
        ({"type": "integer", "exclusiveMinimum": 4}, 5),
        ({"type": "integer", "minimum": 7, "multipleOf": 5}, 10),
        ({"type": "number", "maximum": -0.5}, -0.5),
        ({"enum": ["b", "a"]}, "b"),
        ({"const": {"x": 1}}, {"x": 1}),
        ({"type": "array", "minItems": 2, "items": {"type": "integer"}}, [0, 0]),
        ({"type": "array", "minItems": 2, "prefixItems": [{"const": 1}], "items": {"const": 2}}, [1, 2]),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, ""),
        ({"allOf": [{"required": ["a"]}, {"properties": {"a": {"type": "integer"}}}]}, {"a": 0}),
        ({"type": "object", "properties": {"a": {"type": "null"}}, "minProperties": 1}, {"a": None}),
        ({"type": "string", "minLength": 3.0}, "xxx"),
        ({"type": "array", "minItems": 2.0, "items": {"type": "null"}}, [None, None]),
        ({"type": "object", "properties": {"a": {"type": "null"}}, "minProperties": 1.0}, {"a": None}),
        ({"type": "integer", "minimum": 1e300}, 1e300),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "array"}}}, []),
        (
            {
                "$defs": {
                    "node": {
                        "type": "object",
                        "properties": {"next": {"$ref": "#/$defs/node"}, "v": {"const": 1}},
                        "required": ["v"],
                    }
                },
                "$ref": "#/$defs/node",
            },
            {"v": 1},
        ),
    ],
)
def test_the_smallest_value_matches(schema: dict[str, Any], value: Any) -> None:
    assert orjson.loads(orjson.dumps(smallest(schema))) == value
    assert complaint(schema, value) is None


def test_a_schema_without_end_gives_a_value_of_bounded_size() -> None:
    node = {"type": "object", "required": ["l", "r"], "properties": {"l": {"$ref": "#"}, "r": {"$ref": "#"}}}
    assert len(orjson.dumps(smallest({**node, "properties": {"l": {"$ref": "#"}, "r": {"$ref": "#"}}}))) < 1_000_000


@pytest.mark.parametrize(
    "schema",
    [{"type": "string", "minLength": 10**12}, {"type": "array", "minItems": 10**12}, {"allOf": [{"$ref": "#"}]}],
)
def test_a_schema_of_huge_values_gives_a_bounded_one(schema: dict[str, Any]) -> None:
    assert len(orjson.dumps(smallest(schema))) < 1_000_000


def test_the_items_of_a_long_list_are_whole() -> None:
    item = {"type": "object", "required": ["a"], "properties": {"a": {"allOf": [{"minLength": 9}, {"title": "b"}]}}}
    assert smallest({"type": "array", "minItems": 9_000, "items": item}) == [{"a": "xxxxxxxxx"}] * 9_000


@pytest.mark.parametrize(
    "schema",
    [
        {
            "type": "array",
            "minItems": 10_000,
            "items": {
                "type": "object",
                "required": [f"a{n}" for n in range(3000)],
                "allOf": [{"required": [f"b{n}" for n in range(3000)]}],
            },
        },
        {"type": "array", "minItems": 9_999, "items": {"type": "string", "minLength": 10_000}},
        {"type": "array", "minItems": 9_999, "items": {"const": "x" * 60_000}},
        {"type": "array", "minItems": 9_999, "items": {"allOf": [{"anyOf": [{"title": str(n)}]} for n in range(1500)]}},
    ],
    ids=["merged names", "long texts", "a long constant", "merged schemas"],
)
def test_a_value_that_would_take_long_to_make_is_not_made(schema: dict[str, Any]) -> None:
    started = time.thread_time()  # of the processor: other tests run beside
    assert len(orjson.dumps(smallest(schema))) < 1_000_000
    assert time.thread_time() - started < 2


def test_a_pattern_of_a_list_of_ordinary_size_is_checked_in_full() -> None:
    schema = {"items": {"type": "string", "pattern": "^[a-z]+-[0-9]+$"}}
    assert complaint(schema, [f"a-{n}" for n in range(10_000)]) is None
    assert complaint(schema, ["a-1"] * 9_999 + ["a"]) is not None


@pytest.mark.parametrize("draft", ["draft-07", "draft/2020-12"])
def test_the_dialects_of_json_schema_are_read_as_the_newest(draft: str) -> None:
    schema = {"$schema": f"http://json-schema.org/{draft}/schema#", "type": "object", "required": ["a"]}
    assert complaint(schema, {}) == "at $: 'a' is required"


def doubling(levels: int) -> dict[str, Any]:
    """A schema of a few hundred bytes that is 2^levels visits of one value."""
    pairs = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/a0", "$defs": {**pairs, f"a{levels}": {"type": "integer"}}}


def branching() -> dict[str, Any]:
    """A schema that is 2^depth visits of a value of that depth, none of which matches."""
    node = {"$ref": "#/$defs/n"}
    choices = [{"properties": {"x": node, name: True}, "required": ["none"]} for name in ("a", "b")]
    return {**node, "$defs": {"n": {"anyOf": choices}}}


def chain(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (doubling(40), 3),
        (branching(), chain(12)),
        (branching(), chain(60)),
        ({"items": {"allOf": [{"not": {"const": n}} for n in range(2000)]}}, [0.5] * 100_000),
        (orjson.loads(orjson.dumps(doubling(40)).replace(b"/$defs/", b"/%24defs/")), 3),
        ({"dependencies": {"x": doubling(40)}, **doubling(40)}, {"x": 1}),
        ({"items": {"pattern": "(?=x)|^(a|aa)+$(?<=c)"}}, ["a" * 28 + "!N"] * 30_000),
        ({"patternProperties": {"(?=x)|^(a|aa)+$(?<=c)": {}}}, {"a" * 28 + f"!{n}": n for n in range(30_000)}),
        ({"allOf": [{"not": {"pattern": f"^[a-z]+{n}$"}} for n in range(30)]}, "a" * 50_000_000),
        ({"allOf": [{"uniqueItems": True, "minItems": n} for n in range(1500)]}, [[n] for n in range(100_000)]),
    ],
)
def test_a_schema_made_to_take_long_does_not(schema: dict[str, Any], value: Any) -> None:
    started = time.thread_time()  # of the processor: other tests run beside
    assert complaint(schema, value) is not None
    assert time.thread_time() - started < 2


def test_a_recursive_schema_of_ordinary_size_is_checked_in_full() -> None:
    leaf = {"properties": {"kind": {"const": "leaf"}}, "required": ["kind"]}
    node = {
        "properties": {"kind": {"const": "node"}, "sons": {"items": {"$ref": "#/$defs/tree"}}},
        "required": ["kind"],
    }
    schema = {"$ref": "#/$defs/tree", "$defs": {"tree": {"anyOf": [leaf, node]}}}
    tree: dict[str, Any] = {"kind": "leaf"}
    for _ in range(8):
        tree = {"kind": "node", "sons": [tree, tree]}
    assert complaint(schema, tree) is None
    assert complaint(schema, {"kind": "node", "sons": [{"kind": "lea"}]}) is not None


TOO_LONG = "at $: checking it against the schema takes too long; a simpler schema is needed"
LONG_REFERENCE = {"$defs": {"A" * 15_000: True}, "items": {"$ref": "#/$defs/" + "%41" * 15_000}}


def names(first: str, count: int) -> dict[str, Any]:
    return {f"{first}{n}": {} for n in range(count)}


def unevaluated(levels: int) -> dict[str, Any]:
    """A schema whose innermost is visited 3^levels times: for itself and for what is unevaluated around it."""
    schema: dict[str, Any] = {"properties": {"z": True}}
    for _ in range(levels):
        schema = {"allOf": [schema], "unevaluatedProperties": False}
    return schema


class Followed:
    """How often a reference was read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
        self.count = 0
        self._target = module.target
        monkeypatch.setattr(module, "target", self._counted)

    def _counted(self, root: Any, reference: str) -> Any:
        self.count += 1
        return self._target(root, reference)


class Gone(dict[str, Any]):
    """An object that knows how often all its names were gone through."""

    times = 0

    def __iter__(self) -> Any:
        self.times += 1
        return super().__iter__()

    def items(self) -> Any:
        self.times += 1
        return super().items()


def test_a_reference_is_read_once_to_count_visits(monkeypatch: pytest.MonkeyPatch) -> None:
    followed = Followed(monkeypatch, json_bounds)
    visits(LONG_REFERENCE, [[n] for n in range(4000)], 50_000, backtracks=False)
    assert followed.count == 1


def test_a_reference_is_read_once_to_make_the_smallest_value(monkeypatch: pytest.MonkeyPatch) -> None:
    followed = Followed(monkeypatch, json_schema)
    assert smallest({**LONG_REFERENCE, "type": "array", "minItems": 500}) == [None] * 500
    assert followed.count == 1


def test_the_names_of_many_properties_are_not_gone_through_for_small_objects() -> None:
    properties = Gone(names("a", 4500))
    visits({"items": {"properties": properties}}, [{"x": n} for n in range(9)], 50_000, backtracks=False)
    assert properties.times == 0


def test_the_names_of_an_object_are_measured_once() -> None:
    value = Gone(names("a", 1000))
    schema = {"allOf": [{"title": str(n), "patternProperties": {"^a": True}} for n in range(20)]}
    visits(schema, value, 50_000, backtracks=False)
    assert value.times == 1


@pytest.mark.parametrize(
    ("schema", "value", "least"),
    [
        ({"enum": [{"a": n} for n in range(5000)]}, {"a": 1}, 200),
        ({"enum": list(range(5000))}, 0.5, 5),
        ({"const": list(range(10_000))}, [1], 200),
        ({"required": [*names("a", 5000)]}, names("a", 5000), 50),
        ({"properties": names("a", 5000)}, names("b", 5000), 50),
        ({"dependentRequired": {name: ["x"] for name in names("a", 3000)}}, {}, 30),
        ({"dependentRequired": {"x": [*names("a", 3000)]}}, {"x": 1}, 30),
        (unevaluated(4), {"z": 1}, 3**4),
    ],
    ids=["enum", "scalars", "const", "required", "properties", "dependencies", "dependency", "unevaluated"],
)
def test_a_visit_that_looks_at_much_counts_for_many(schema: dict[str, Any], value: Any, least: int) -> None:
    assert least <= visits(schema, value, 50_000, backtracks=False) < 3 * least


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"enum": [{"a": n} for n in range(5000)]}}, [{"a": 4999}] * 4900),
        ({"items": {"const": list(range(10_000))}}, [[n] for n in range(4900)]),
        (unevaluated(12), {"z": 1}),
    ],
    ids=["enum", "const", "unevaluated"],
)
def test_what_matches_but_takes_too_long_to_check_is_a_complaint(schema: dict[str, Any], value: Any) -> None:
    assert complaint(schema, value) == TOO_LONG


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"enum": [f"code-{n}" for n in range(3000)]}}, ["code-2999"] * 5000),
        (LONG_REFERENCE, [[n] for n in range(4000)]),
        (unevaluated(4), {"z": 1}),
    ],
    ids=["enum", "reference", "unevaluated"],
)
def test_what_takes_little_time_is_checked_in_full(schema: dict[str, Any], value: Any) -> None:
    assert complaint(schema, value) is None


def test_the_smallest_value_of_many_merged_schemas_is_merged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    merges = []
    monkeypatch.setattr(json_schema, "_merge", lambda into, part: merges.append(part) or len(part) + len(into))
    smallest({"type": "array", "minItems": 500, "items": {"allOf": [{"title": "a"}]}})
    assert len(merges) == 1


def test_a_schema_of_too_many_patterns_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonschema_rs, "Draft202012Validator", lambda *_, **__: pytest.fail("it was compiled"))
    with pytest.raises(Unprocessable, match="has 31 regular expressions with 62 characters"):
        check_schema({"title": "not compiled", "allOf": [{"pattern": "ab"} for _ in range(31)]})


def test_a_pattern_that_is_too_large_is_told_from_a_wrong_type() -> None:
    with pytest.raises(Unprocessable, match="too large a one"):
        check_schema({"pattern": r"\p{L}{40}"})
