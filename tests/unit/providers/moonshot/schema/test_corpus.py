"""Tools as they are met in life: each is taken by the strict upstream and keeps its meaning."""

from __future__ import annotations

import json

import jsonschema
import pytest

from kimi_gateway.providers.moonshot.argument_names import escaped_text
from kimi_gateway.providers.moonshot.schema.clean import clean_tool
from kimi_gateway.providers.moonshot.schema.cleaner import MOST_STEPS
from support.tool_corpus import CORPUS, Json
from support.tool_corpus_generated import GENERATED, OPENED
from upstream import mfjs

EVERY = {**CORPUS, **GENERATED}


@pytest.mark.parametrize("name", EVERY)
def test_a_tool_from_life_is_taken_and_keeps_its_meaning(name: str) -> None:
    schema, samples = EVERY[name]
    cleaned = clean_tool(schema, MOST_STEPS)
    said: Json = schema if cleaned.schema is None else cleaned.schema
    assert mfjs.refusal(said) is None, said
    assert cleaned.loosened == (name in OPENED)
    assert said["properties"], "something is left of it"
    for sample in samples:
        jsonschema.validate(sample, schema)
        sent = json.loads(escaped_text(json.dumps(sample))) if cleaned.renamed else sample
        jsonschema.validate(sent, said)
    assert clean_tool(said, MOST_STEPS).schema is None, "which stays as it is"
    assert len(json.dumps(said)) <= max(2 * len(json.dumps(schema)), 3_000)


def test_there_are_thirty_of_them() -> None:
    assert len(EVERY) >= 30
