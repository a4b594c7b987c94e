"""The vendor's limits of a whole schema: what is beyond them is opened, as little as it takes."""

from __future__ import annotations

import json
import marshal
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kimi_gateway.errors import InvalidRequest
from kimi_gateway.providers.moonshot import argument_names, tools
from kimi_gateway.providers.moonshot.schema import clean
from kimi_gateway.providers.moonshot.schema.clean import clean_tool
from kimi_gateway.providers.moonshot.schema.cleaner import MOST_STEPS
from support.client_costs import Steps
from support.examples import examples
from upstream import mfjs

Json = dict[str, Any]
STRING = {"type": "string"}


def of(properties: Json, **more: Any) -> Json:
    return {"type": "object", "properties": properties, **more}


def nested(depth: int) -> Json:
    return of({"in": nested(depth - 1), "beside": STRING}) if depth else STRING


def said(schema: Any) -> Json:
    cleaned = clean_tool(schema, tools.MOST_STEPS)
    result: Json = schema if cleaned.schema is None else cleaned.schema
    assert mfjs.refusal(result) is None
    return result


def test_ten_levels_stay_and_the_eleventh_is_open_and_told() -> None:
    assert clean_tool(nested(10), MOST_STEPS).schema is None
    node = said(nested(12))
    for _ in range(10):
        assert node["properties"]["beside"] == STRING
        node = node["properties"]["in"]
    assert node == {"type": "object", "description": "(with in, beside)"}


@pytest.mark.parametrize("depth", range(5, 12))
def test_a_reference_back_is_as_deep_as_what_it_names(depth: int) -> None:
    """It stands two levels down in it. So a definition of eight levels fits, where one level refers to it."""
    item = of({"a": {"$ref": "#/$defs/D"}, "b": nested(depth)})
    schema = of({"a": {"$ref": "#/$defs/D"}}, **{"$defs": {"D": {"type": "array", "items": item}}})
    cleaned = clean_tool(schema, tools.MOST_STEPS)
    assert (cleaned.schema is None) == (depth <= 6)
    assert said(schema)["$defs"]["D"]["items"]["properties"]["a"] == {"$ref": "#/$defs/D"}


def test_the_large_part_is_opened_and_the_rest_stays() -> None:
    large = of({f"p{at}": of({"a": {"type": "string", "description": f"{at} " * 40}}) for at in range(200)})
    schema = of({"large": large, "small": of({"n": {"type": "integer"}}), "plain": STRING})
    result = said(schema)
    assert result["properties"]["plain"] == STRING
    assert result["properties"]["small"]["properties"] == {"n": {"type": "integer"}}
    assert len(result["properties"]["large"]["properties"]) == 200
    assert any(
        "with a" in part.get("description", "")
        for part in result["properties"]["large"]["properties"].values()
    )


def test_too_many_values_become_words_the_longest_list_first() -> None:
    long, short = [f"v{at}" for at in range(490)], ["a", "b", *(f"w{at}" for at in range(18))]
    properties = said(of({"long": {"enum": long}, "short": {"enum": short}}))["properties"]
    assert properties["short"]["enum"] == short
    assert properties["long"]["description"].startswith('(one of 490: "v0", "v1"')


def test_more_than_a_hundred_alternatives() -> None:
    branches = [of({f"p{at}": STRING}, required=[f"p{at}"]) for at in range(120)]
    folded = said(of({"x": {"anyOf": branches}}))["properties"]["x"]
    assert len(folded["properties"]) == 120
    values = said(of({"x": {"oneOf": [{"const": f"v{at}", "title": "T"} for at in range(200)]}}))
    assert len(values["properties"]["x"]["enum"]) == 200


def test_saying_it_anew_does_not_multiply() -> None:
    """An inherited part that is written out twelve times, and one that stands in sixty places."""
    base = of({f"b{at}": {"type": "string", "description": f"common text {at}"} for at in range(20)})
    heirs = {f"f{at}": {"allOf": [{"$ref": "#/$defs/B"}, of({f"own{at}": STRING})]} for at in range(12)}
    places = {f"p{at}": {"allOf": [{"$ref": "#/$defs/B"}, {"type": "object"}]} for at in range(60)}
    for properties in (heirs, places):
        schema = of(properties, **{"$defs": {"B": base}})
        result = said(schema)
        assert len(json.dumps(result)) <= max(2 * len(json.dumps(schema)), 3_200)
        assert list(result["properties"]) == list(properties)
    assert said(of(places, **{"$defs": {"B": base}}))["$defs"], "shared parts stay definitions"


WIDE: dict[str, Json] = {
    "all of many enums": {"allOf": [{"enum": [f"v{at}" for at in range(300)]}] * 300},
    "all of many names": {"allOf": [{"required": [f"r{at}"]} for at in range(3_000)]},
    "all of many properties": {"allOf": [of({f"p{at}": {}}) for at in range(3_000)]},
    "any of many values": of({"x": {"anyOf": [{"const": at} for at in range(9_000)]}, "y": STRING}),
    "alternatives of alternatives": {
        "allOf": [{"anyOf": [{"required": [f"{a}{b}"]} for b in "abcdefgh"]} for a in range(200)]
    },
    "many ifs": {"allOf": [{"if": {"required": [f"{at}"]}, "then": {}} for at in range(3_000)]},
}


@pytest.mark.parametrize("schema", WIDE.values(), ids=WIDE)
def test_the_steps_of_one_schema_are_bounded(schema: Json) -> None:
    cleaned = clean_tool(schema, 100 * MOST_STEPS)
    assert cleaned.loosened
    size = len(marshal.dumps(schema, 2))
    assert cleaned.steps - size // clean.BYTES_A_STEP <= 2.6 * MOST_STEPS


def test_the_steps_of_one_request_are_bounded_and_the_same_when_known() -> None:
    """A schema that is remembered costs what it cost, so that the same request is sent as the same bytes."""
    plenty = [
        of({f"p{at}": {"type": ["string", "null"]} for at in range(60)}, title=f"{n}") for n in range(20)
    ]
    told = []
    for _ in range(2):
        left, results = 1_000, []
        for schema in plenty:
            cleaned = clean_tool(schema, left)
            left -= cleaned.steps
            results.append(cleaned.schema)
        told.append(results)
    assert told[0] == told[1]
    assert left <= 0
    assert told[0][0]["properties"]["p0"], "the first are whole"
    assert told[0][-1]["description"].startswith("(with p0, p1"), "the last are told"
    for schema in plenty:
        assert clean_tool(schema, MOST_STEPS).steps > 100


WORDS = st.sampled_from(["a", "b", "required", "required_", "$ref", "anyOf"])
LEAVES = st.one_of(
    st.sampled_from([STRING, {"type": "integer"}, {"const": "x"}, {}, True, {"type": ["string", "null"]}]),
    st.integers(1, 700).map(lambda count: {"enum": [f"value {at}" for at in range(count)]}),
    st.integers(1, 4_000).map(lambda length: {"type": "string", "description": "d" * length}),
    st.just({"$ref": "#/$defs/D"}),
    st.integers(9, 13).map(nested),
    st.integers(1, 1_200).map(lambda count: of({f"k{at}": {"type": "null"} for at in range(count)})),
)
NODES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(WORDS, inner, max_size=4).map(of),
        inner.map(lambda part: {"type": "array", "items": part}),
        st.lists(inner, min_size=1, max_size=130).map(lambda parts: {"anyOf": parts}),
    ),
    max_leaves=12,
)
ROOTS = st.builds(
    lambda properties, shared, required: of(properties, required=required, **{"$defs": {"D": shared}}),
    st.dictionaries(WORDS, NODES, max_size=5),
    NODES,
    st.lists(WORDS, max_size=2, unique=True),
)
VALUES = st.recursive(
    st.sampled_from(["x", "value 3", None, 1, True]),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=6,
)


@pytest.mark.fuzz
@settings(deadline=None, max_examples=examples(60), suppress_health_check=list(HealthCheck))
@given(ROOTS, st.lists(st.dictionaries(WORDS, VALUES, max_size=4), max_size=6))
def test_any_schema_is_within_the_limits_and_forbids_nothing_more(
    schema: Json, documents: list[Json]
) -> None:
    cleaned = clean_tool(schema, tools.MOST_STEPS)
    result: Json = schema if cleaned.schema is None else cleaned.schema
    assert mfjs.refusal(result) is None
    before, after = (jsonschema.Draft202012Validator(each) for each in (schema, result))
    for document in documents:
        try:
            valid = before.is_valid(document)
        except RecursionError:
            continue
        text = json.dumps(document)
        sent = json.loads(argument_names.escaped_text(text)) if cleaned.renamed else document
        assert not valid or after.is_valid(sent), document


DOCUMENTS = st.recursive(
    st.one_of(st.text(max_size=8), st.sampled_from(["required_", '"$ref":', "\\"]), st.integers()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=8,
)


@settings(deadline=None, max_examples=examples(60), suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(WORDS, DOCUMENTS, max_size=4),
    st.integers(1, 40),
    st.booleans(),
    st.sampled_from([None, 1]),
)
def test_keys_come_back_whole_in_whatever_pieces(
    document: Json, size: int, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent)
    there = argument_names.escaped_text(text)
    assert not set(json.loads(there)) & {"required", "$ref", "anyOf"}
    keys = argument_names.Keys()
    back = "".join([keys.add(there[at : at + size]) for at in range(0, len(there), size)]) + keys.rest()
    assert json.loads(back) == document


def test_what_is_known_is_bounded() -> None:
    for at in range(clean.REMEMBERED + 9):
        clean_tool(of({f"p{at}": {"const": at}}), MOST_STEPS)
    assert len(clean._memory) == clean.REMEMBERED


HUGE: dict[str, Callable[[], Any]] = {
    "a chain of definitions": lambda: {
        **of({"a": {"$ref": "#/$defs/d0"}}),
        "$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(25_000)},
    },
    "objects as consts": lambda: of(
        {"a": {"anyOf": [{"const": {"k": [n, n], "l": [n]}} for n in range(20_000)]}}
    ),
    "objects in an enum": lambda: of({"a": {"enum": [{"k": [n, n], "l": [n]} for n in range(20_000)]}}),
    "no schema at all": lambda: {"x": [[{"y": [n]}] for n in range(50_000)]},
}  # fmt: skip


@pytest.mark.parametrize("made", HUGE.values(), ids=HUGE)
def test_a_huge_schema_is_open_without_a_look_at_its_parts(made: Callable[[], Json]) -> None:
    """Its bytes count as steps, so nothing of it is worked at; the other tools keep theirs."""
    schema = made()
    with Steps() as steps:
        cleaned = clean_tool(schema, tools.MOST_STEPS)
    assert cleaned.loosened
    assert mfjs.refusal(cleaned.schema) is None
    assert (cleaned.steps, steps.count < 5_000) == (0, True)
    with Steps() as steps, pytest.raises(InvalidRequest) as caught:
        clean.clean(schema, "response_format.json_schema.schema")
    assert (caught.value.param, steps.count < 20) == ("response_format.json_schema.schema", True)


def test_the_bytes_of_all_large_schemas_together_are_bounded() -> None:
    left, kept = tools.MOST_STEPS, 0
    for number in range(60):
        description = f"{number} " * 20_000
        cleaned = clean_tool(of({"a": {"type": "string", "description": description}}), left)
        left -= cleaned.steps
        kept += cleaned.steps > 0
    assert 1 <= kept <= 10
    assert left >= 0
