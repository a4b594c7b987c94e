"""Answers of users fit the OpenAPI document, member by member."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from kimi_gateway.edge.home.openapi import schema
from support.inprocess import InProcess, kimi


@pytest.fixture(scope="module")
def desk() -> Iterator[InProcess]:
    with InProcess() as desk:
        desk.client.answer = kimi
        yield desk


def resolved(document: Any, part: Any) -> Any:
    if isinstance(part, dict) and "$ref" in part:
        found = document
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        return resolved(document, found)
    if isinstance(part, dict):
        return {name: resolved(document, each) for name, each in part.items()}
    return [resolved(document, each) for each in part] if isinstance(part, list) else part


@pytest.mark.parametrize("path", ["/user/credits", "/user/status", "/user/usage"])
def test_real_answers_fit_their_schemas(desk: InProcess, path: str) -> None:
    key = desk.key()
    desk.chat(key, {})
    document = schema(desk.router.table)
    operation = resolved(document, document["paths"][path]["get"])
    answer = desk.call("GET", path, key=key)
    content = operation["responses"]["200"]["content"]["application/json"]["schema"]
    Draft202012Validator(content).validate(answer.json)
    assert set(answer.json) <= set(content["properties"])
    wrong = desk.call("GET", path)
    Draft202012Validator(operation["responses"]["401"]["content"]["application/json"]["schema"]).validate(
        wrong.json
    )
