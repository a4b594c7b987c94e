"""Streams whose attachments take long to read, on sockets: the client gets signs of life meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from kimi_gateway.errors import InvalidRequest, Unavailable
from support.attaching import PATHS, Files, body, document, user
from support.formats import FORMATS
from support.live import LiveGateway
from upstream import ScriptedUpstream

SIGNS = {"chat": b": ping\n\n", "messages": b"event: ping\n", "responses": b"event: response.in_progress\n"}
EACH = pytest.mark.parametrize("form", PATHS)
BEGINNINGS = {"chat": b"", "messages": b"event: message_start\n", "responses": b"event: response.created\n"}


SETTINGS = {"ping_interval": 0.02}  # of the gateway of this module


@pytest.fixture
def files(gateway: LiveGateway, module_upstream: ScriptedUpstream) -> Files:
    """Files that are read when `wait` is set."""
    module_upstream.forget()
    module_upstream.requests.clear()
    assert gateway.app.running is not None
    files = Files(wait=asyncio.Event())
    gateway.app.running.gateway.files = files
    return files


def given(form: str, stream: bool = True, **more: Any) -> dict[str, Any]:
    return body(form, user(form, document(form, "address"), words="Sum it up."), stream=stream, **more)


def signs(form: str, pieces: Iterator[bytes], number: int = 3) -> bytes:
    came = b""
    while came.count(SIGNS[form]) < number:
        came += next(pieces)
    return came


def go_on(gateway: LiveGateway, files: Files) -> None:
    assert files.wait is not None
    gateway.call(files.wait.set)


@EACH
def test_signs_of_life_while_a_document_is_read(
    gateway: LiveGateway, module_upstream: ScriptedUpstream, files: Files, form: str
) -> None:
    key = gateway.key()
    with gateway.client(key) as client, client.stream("POST", PATHS[form], json=given(form)) as answer:
        assert answer.status_code == 200
        pieces = answer.iter_raw()
        came = signs(form, pieces)
        assert module_upstream.chats == []
        go_on(gateway, files)
        came += b"".join(pieces)
    told = FORMATS[form].read(came.decode(), True)
    assert told.whole
    assert told.content
    (sent,) = module_upstream.chats
    assert "text of the address" in str(sent.body["messages"])
    if beginning := BEGINNINGS[form]:
        assert came.startswith(beginning)
        assert came.count(beginning) == 1
    gateway.nothing_left(key)
    (row,) = gateway.usage(key)
    assert (row.requests, row.errors, row.credits) == (1, 0, 1)


@EACH
@pytest.mark.parametrize("kind", [InvalidRequest, Unavailable])
def test_a_failure_after_a_sign_of_life_is_an_event_and_costs_nothing(
    gateway: LiveGateway, module_upstream: ScriptedUpstream, files: Files, form: str, kind: Any
) -> None:
    files.failure = kind("the document is broken")
    key = gateway.key()
    with gateway.client(key) as client, client.stream("POST", PATHS[form], json=given(form)) as answer:
        assert answer.status_code == 200
        pieces = answer.iter_raw()
        came = signs(form, pieces)
        go_on(gateway, files)
        came += b"".join(pieces)
    told = FORMATS[form].read(came.decode(), True)
    assert not told.whole
    assert told.error is not None
    assert "the document is broken" in str(told.error)
    assert module_upstream.chats == []
    gateway.nothing_left(key)
    assert gateway.account(key).credits == 100
    assert files.open == 0


@EACH
def test_who_leaves_after_a_sign_of_life_pays_nothing_and_holds_nothing(
    gateway: LiveGateway, module_upstream: ScriptedUpstream, files: Files, form: str
) -> None:
    key = gateway.key()
    with gateway.client(key) as client, client.stream("POST", PATHS[form], json=given(form)) as answer:
        pieces = answer.iter_raw()  # its end would close the connection
        signs(form, pieces, 1)
        assert files.open == 1
    gateway.until(lambda: files.open == 0)
    gateway.nothing_left(key)
    assert gateway.account(key).credits == 100
    assert module_upstream.chats == []


@EACH
def test_a_json_answer_waits_for_its_document_and_fails_with_a_status(
    gateway: LiveGateway, files: Files, form: str
) -> None:
    files.failure = InvalidRequest("the document is broken")
    go_on(gateway, files)
    with gateway.client(gateway.key()) as client:
        answer: httpx.Response = client.post(PATHS[form], json=given(form, stream=False))
    assert answer.status_code == 400


# A rule that takes too much work before admission is known only later; so is what a kept answer adds.
WIDE = {f"p{at}": {"type": "string", "enum": [f"{at}-{n}" for n in range(40)]} for at in range(200)}


WORK = [
    *((form, work) for form in PATHS for work in ("little", "a large schema")),
    ("responses", "a kept answer"),
]


@pytest.mark.parametrize(("form", "work"), WORK)
def test_a_head_before_the_attachments_names_what_the_rules_of_the_model_drop(
    gateway: LiveGateway, files: Files, form: str, work: str
) -> None:
    more: dict[str, Any] = {"temperature": 0.5}
    with gateway.client(gateway.key()) as client:
        if work == "a kept answer":
            more["previous_response_id"] = client.post(PATHS[form], json=body(form, user(form))).json()["id"]
        if work == "a large schema":
            schema = {"type": "object", "properties": WIDE}
            function = {"name": "f", "description": "", "parameters": schema}
            more["tools"] = [
                {
                    "chat": {"type": "function", "function": function},
                    "messages": {"name": "f", "input_schema": schema},
                    "responses": {"type": "function", **function},
                }[form]
            ]
        with client.stream("POST", PATHS[form], json=given(form, **more)) as answer:
            assert "temperature" in answer.headers["x-param-ignored"].split(", ")
            pieces = answer.iter_raw()
            came = signs(form, pieces, 1)
            go_on(gateway, files)
            came += b"".join(pieces)
    assert FORMATS[form].read(came.decode(), True).whole
