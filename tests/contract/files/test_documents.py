"""Every type of document that the platform reads, in every format, streamed and whole, from every source."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.attaching import PATHS, body, result, user
from support.live import LiveGateway
from support.resolving import docx, pdf, pptx, xlsx
from support.uploading import upload
from support.web import Web
from upstream import ScriptedUpstream
from upstream.kimi import TEXT

WORDS = "Rainfall 4711"
OFFICE = "application/vnd.openxmlformats-officedocument"
TYPES = {
    "pdf": (pdf(WORDS), "application/pdf"),
    "docx": (docx(WORDS), f"{OFFICE}.wordprocessingml.document"),
    "xlsx": (xlsx(WORDS), f"{OFFICE}.spreadsheetml.sheet"),
    "pptx": (pptx(WORDS), f"{OFFICE}.presentationml.presentation"),
    "html": (f"<!doctype html><p>{WORDS}</p>".encode(), "text/html"),
    "csv": (f"a;b\n{WORDS};1\n".encode(), "text/csv"),
}


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with Web(**{f"a_{name}": data for name, (data, _) in TYPES.items()}) as web:
        yield web


@pytest.fixture(scope="module")
def gateway(
    web: Web, module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    folder = tmp_path_factory.mktemp("documents")
    with LiveGateway(folder, module_upstream.url, fetch_allowed=(web.target,)) as gateway:
        yield gateway


def parts(form: str, name: str, url: str, id: str) -> list[dict[str, Any]]:
    """The document in bytes, by address and by its id."""
    data, media_type = TYPES[name]
    coded = base64.b64encode(data).decode()
    if form == "messages":
        sources: list[dict[str, Any]] = [
            {"type": "base64", "media_type": media_type, "data": coded},
            {"type": "url", "url": url},
            {"type": "file", "file_id": id},
        ]
        return [{"type": "document", "source": source} for source in sources]
    files: list[dict[str, Any]] = [
        {"file_data": f"data:{media_type};base64,{coded}", "filename": f"a.{name}"},
        {"file_url": url},
        {"file_id": id},
    ]
    return [
        {"type": "file", "file": file} if form == "chat" else {"type": "input_file", **file} for file in files
    ]


@pytest.mark.parametrize("form", PATHS)
@pytest.mark.parametrize("name", TYPES)
def test_the_model_reads_a_document_wherever_it_comes_from(
    gateway: LiveGateway, upstream: ScriptedUpstream, web: Web, form: str, name: str
) -> None:
    with gateway.client(gateway.key()) as client:
        id = upload(client, TYPES[name][0], f"a.{name}").json()["id"]
        for index, part in enumerate(parts(form, name, f"{web.url}/a.{name}", id)):
            for messages in ([user(form, part)], [user(form), *result(form, part)]):
                given = body(form, *messages, stream=index % 2 == 0)
                answer = client.post(PATHS[form], json=given)
                assert answer.status_code == 200, answer.text
                assert WORDS in json.dumps(upstream.chats[-1].body["messages"])
                assert TEXT.split()[0] in answer.text
        assert client.delete(f"/v1/files/{id}").status_code == 200
    gateway.until(lambda: not upstream.files.files)
