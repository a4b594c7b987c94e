"""Any JSON Schema becomes one that the vendor takes, and no document that it allowed is lost by that."""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kimi_gateway.errors import InvalidRequest
from kimi_gateway.providers.moonshot.schema.clean import clean
from upstream import mfjs

Json = dict[str, Any]
WORDS = st.sampled_from(["a", "b", "title", "type"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, 2.0]),
    st.sampled_from(["", "a", "bc"]),
)
ANNOTATIONS: dict[str, st.SearchStrategy[Any]] = {
    "title": st.just("Title"),
    "description": st.sampled_from(["One.", "Two."]),
    "$comment": st.just("c"),
    "examples": st.just([1]),
    "x-own": st.just({"deep": True}),
    "format": st.just("date"),
    "deprecated": st.booleans(),
}
BY_TYPE: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "string": {"minLength": st.integers(0, 2), "maxLength": st.integers(1, 3), "pattern": st.just("^[ab]*$")},
    "integer": {
        "minimum": st.integers(-2, 1),
        "exclusiveMinimum": st.integers(-2, 1),
        "maximum": st.sampled_from([2, 2.5]),
        "multipleOf": st.just(2),
    },
    "number": {"exclusiveMaximum": st.integers(0, 3), "minimum": st.sampled_from([-1, -0.5])},
    "boolean": {},
    "null": {},
}


def annotated(schema: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    more = st.fixed_dictionaries({}, optional=ANNOTATIONS)
    return st.builds(lambda schema, more: {**more, **schema}, schema, more)


def of_scalars() -> st.SearchStrategy[Json]:
    each = [
        st.fixed_dictionaries({"type": st.just(kind)}, optional=keywords)
        for kind, keywords in BY_TYPE.items()
    ]
    values = st.lists(SCALARS, min_size=1, max_size=4)
    return st.one_of(
        *each,
        st.fixed_dictionaries({"enum": values}),
        st.fixed_dictionaries({"const": st.one_of(SCALARS, st.just({"a": 1}), st.just([1]))}),
        st.fixed_dictionaries({"type": st.lists(st.sampled_from([*BY_TYPE]), min_size=1, unique=True)}),
        st.just({"$ref": "#/$defs/shared"}),
        st.just({"$ref": "#/definitions/old~1er"}),
        st.just({"type": "string", "$ref": "#/$defs/shared"}),
    )


def extended(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    schema = st.one_of(inner, st.just({}), st.just(True))
    objects = st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(WORDS, schema, max_size=3)},
        optional={
            "required": st.lists(WORDS, max_size=2),
            "additionalProperties": schema,
            "minProperties": st.just(1),
            "patternProperties": st.just({"^x": {"type": "string"}}),
        },
    )
    arrays = st.fixed_dictionaries(
        {"type": st.just("array")},
        optional={
            "items": schema,
            "minItems": st.integers(0, 2),
            "uniqueItems": st.booleans(),
            "prefixItems": st.lists(schema, min_size=1, max_size=2),
        },
    )
    several = st.lists(schema, min_size=1, max_size=3)
    unions = st.sampled_from(["anyOf", "oneOf", "allOf"]).flatmap(
        lambda name: st.fixed_dictionaries(
            {name: several}, optional={"type": st.sampled_from(["object", ["string", "null"]])}
        )
    )
    return annotated(st.one_of(objects, arrays, unions))


NODES = st.recursive(annotated(of_scalars()), extended, max_leaves=8)
ROOTS = st.builds(
    lambda properties, shared, older, more: {
        "type": "object",
        "properties": properties,
        "$defs": {"shared": shared},
        "definitions": {"old/er": older},
        **more,
    },
    st.dictionaries(WORDS, NODES, max_size=3),
    NODES,
    NODES,
    st.fixed_dictionaries(
        {},
        optional={
            "required": st.lists(WORDS, max_size=2),
            "title": st.just("T"),
            "anyOf": st.lists(NODES, min_size=1, max_size=2),
        },
    ),
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=6,
)


def unless_impossible(schema: Json, *why: str) -> Json | None:
    """None where it was refused, which only what nothing, or nothing finite, satisfies may be."""
    try:
        return clean(schema, "here")
    except InvalidRequest as exc:
        refused = exc
    assert refused.param
    assert any(word in refused.message for word in ("satisf", "without an end", *why))
    return None


@pytest.mark.fuzz
@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(ROOTS, st.lists(st.dictionaries(WORDS, DOCUMENTS, max_size=3), max_size=8))
def test_it_is_taken_by_the_vendor_and_allows_what_was_allowed(schema: Json, documents: list[Json]) -> None:
    before = copy.deepcopy(schema)
    cleaned = unless_impossible(schema)
    assume(cleaned is not None)
    assert cleaned is not None
    assert schema == before
    assert mfjs.refusal(cleaned) is None, cleaned
    assert clean(cleaned, "here") is cleaned
    if "required" in json.dumps(schema.get("anyOf")):
        return  # forms at the root that each require something of their own: unit/test_tool_corpus.py
    original, said = (jsonschema.Draft202012Validator(each) for each in (schema, cleaned))
    for document in documents:
        try:
            valid = original.is_valid(document)
        except RecursionError:
            continue
        assert not valid or said.is_valid(document), document


def test_a_described_reference_inside_its_own_definition_stays_a_branch() -> None:
    """Found by scripts/fuzz: written out at another place, it had its description beside it."""
    shared = {"type": "object", "properties": {"c": {"description": "One.", "$ref": "#/$defs/shared"}}}
    there = {"$ref": "#/$defs/shared", "properties": {"c": {"type": "object"}}}
    cleaned = clean({"type": "object", "properties": {"a": there}, "$defs": {"shared": shared}}, "here")
    branch = {"anyOf": [{"$ref": "#/$defs/shared"}], "description": "One."}
    assert cleaned["properties"]["a"]["properties"]["c"] == branch
    assert mfjs.refusal(cleaned) is None
    assert clean(cleaned, "here") is cleaned


def test_a_union_that_offers_itself_again_loses_that_branch() -> None:
    """Found by scripts/fuzz: each cleaning wrote it out once more."""
    itself = {"$ref": "#/$defs/shared"}
    shared = {"anyOf": [itself, {"description": "Again.", **itself}, {"type": "object", "properties": {}}]}
    cleaned = clean({"type": "object", "properties": {}, "anyOf": [itself], "$defs": {"shared": shared}}, "")
    assert cleaned == {"type": "object", "properties": {}}
    with pytest.raises(InvalidRequest):
        clean({"type": "object", "anyOf": [itself], "$defs": {"shared": {"anyOf": [itself]}}}, "here")


def test_what_is_clean_stays_the_very_object() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}}}
    assert clean(schema, "here") is schema


def test_the_same_words_at_another_place_are_refused_with_that_place() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "nothing"}}}
    for where in ("tools.0.function.parameters", "tools.7.function.parameters"):
        with pytest.raises(InvalidRequest) as refused:
            clean(schema, where)
        assert refused.value.param == f"{where}.properties.a.type"
        assert refused.value.message.startswith(f"{where}.properties.a.type: ")


def chain(length: int) -> Json:
    """Each definition names the next one twice: written out it would have 2^length parts."""
    definitions: Json = {f"d{length}": {"type": "string"}}
    for at in range(length):
        next_one = {"$ref": f"#/$defs/d{at + 1}"}
        definitions[f"d{at}"] = {
            "type": "object",
            "properties": {"a": {"allOf": [next_one, {"type": "object"}]}, "b": {"allOf": [next_one, {}]}},
        }
    return {"type": "object", "properties": {"x": {"$ref": "#/$defs/d0"}}, "$defs": definitions}


def scattered(length: int) -> Json:
    """Each definition leads to the next, and none stands beside it."""
    order = list(range(length))
    random.Random(1).shuffle(order)
    definitions: Json = {f"d{length}": {"type": "string"}}
    for at in range(length):
        inner = {"n": {"$ref": f"#/$defs/d{at + 1}"}}
        definitions[f"d{at}"] = {"type": "object", "properties": inner, "required": ["n"]}
    properties = {f"p{at}": {"$ref": f"#/$defs/d{at}"} for at in order}
    return {"type": "object", "properties": properties, "$defs": definitions}


def alternatives() -> Json:
    each = [{"anyOf": [{"required": [f"{a}{b}"]} for b in range(20)]} for a in range(200)]
    return {"type": "object", "allOf": each}


def many() -> Json:
    properties = {f"p{at}": {"type": "string", "format": "date"} for at in range(30_000)}
    return {"type": "object", "properties": properties}


LARGE: dict[str, Callable[[], Json]] = {
    "references": lambda: chain(40),
    "alternatives": alternatives,
    "properties": many,
    "too long a chain of references": lambda: scattered(4_000),
    "all of many enums": lambda: {"allOf": [{"enum": [f"v{at}" for at in range(300)]}] * 300},
    "all of many names": lambda: {"allOf": [{"required": [f"r{at}"]} for at in range(3_000)]},
    "all of many properties": lambda: {"allOf": [{"properties": {f"p{at}": {}}} for at in range(3_000)]},
    "any of many values": lambda: {
        "type": "object",
        "properties": {"a": {"anyOf": [{"const": at} for at in range(9_000)]}},
    },
}


@pytest.mark.parametrize("made", LARGE.values(), ids=LARGE)
def test_the_work_for_one_schema_is_bounded(made: Callable[[], Json]) -> None:
    schema = made()
    begun = time.process_time()
    cleaned = unless_impossible(schema, "steps", "too large", "chain of references", "limits")
    assert cleaned is None or len(json.dumps(cleaned)) < 10_000_000
    assert time.process_time() - begun < 20


def test_a_chain_of_references_is_read_whichever_way_it_is_written() -> None:
    definitions: Json = {"d9": {"type": "string"}}
    for at in range(9):
        inner = {"n": {"$ref": f"#/$defs/d{at + 1}"}}
        definitions[f"d{at}"] = {"type": "object", "properties": inner, "required": ["n"]}
    for first in ("d0", "d8"):
        every = {name: {"$ref": f"#/$defs/{name}"} for name in definitions}
        schema = {"type": "object", "properties": {"first": {"$ref": f"#/$defs/{first}"}} | every}
        clean(schema | {"$defs": definitions}, "parameters")


def test_references_that_lead_on_too_deeply_are_refused() -> None:
    definitions: Json = {"d2000": {"type": "object"}}
    for at in range(2000):
        more = {"type": "object", "properties": {f"p{at}": {"type": "string"}}}
        definitions[f"d{at}"] = {"allOf": [{"$ref": f"#/$defs/d{at + 1}"}, more]}
    with pytest.raises(InvalidRequest) as refused:
        clean({"$ref": "#/$defs/d0", "$defs": definitions}, "tools.0.function.parameters")
    assert refused.value.param == "tools.0.function.parameters"
