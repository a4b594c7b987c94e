"""Uploads on Lambda: a good one, and the whole table of bad ones."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from contract.edges.test_lambda_gateway import Deployed, answered
from contract.files.test_bad_uploads import BAD
from support import api_gateway
from support.api_gateway import Answered
from support.error_shape import openai_error
from support.resolving import docx
from support.uploading import KIND, PURPOSE, form
from upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def files(module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    with Deployed(
        tmp_path_factory.mktemp("files"), module_upstream.url, "handlers.files.handler"
    ) as deployed:
        yield deployed


def sent(deployed: Deployed, key: str, kind: str, raw: bytes) -> Answered:
    headers = [("Host", "api.example.com"), ("Content-Type", kind), ("Authorization", f"Bearer {key}")]
    return answered(deployed.api.invoke(api_gateway.event("POST", "/v1/files", headers, raw)))


def test_a_document_arrives_byte_by_byte(files: Deployed, upstream: ScriptedUpstream) -> None:
    data, key = docx("Rainfall rose."), files.key()
    made = sent(files, key, KIND, form(PURPOSE, ("file", "report.docx", data)))
    assert made.status == 200, made.body
    (kept,) = upstream.files.files.values()
    assert kept.data == data
    id = json.loads(made.body)["id"]
    text = answered(files.send("GET", f"/v1/files/{id}/content", key))
    assert "Rainfall rose." in json.loads(text.body)["content"]
    assert answered(files.send("DELETE", f"/v1/files/{id}", key)).status == 200
    assert upstream.files.files == {}


def test_bad_uploads_say_why_and_leave_nothing(files: Deployed, upstream: ScriptedUpstream) -> None:
    key = files.key()
    for name, (kind, raw, why) in BAD.items():
        answer = sent(files, key, kind, raw)
        assert answer.status == 400, name
        openai_error(json.loads(answer.body))
        assert why in json.loads(answer.body)["error"]["message"], name
    assert upstream.files.files == {}
    assert json.loads(answered(files.send("GET", "/v1/files", key)).body)["data"] == []
    assert (files.account(key).credits, files.account(key).reserved) == (100, 0)
