"""Large files and documents through the functions: by address and by a presigned upload, streamed and
buffered."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import boto3
import httpx
import pytest

from contract.edges.test_lambda_gateway import Deployed, answered
from support import dynamo
from support.attaching import PATHS, body, user
from support.resolving import xlsx
from support.web import Web
from upstream import Request, ScriptedUpstream

BUCKET = "uploads-of-functions"
VIDEO = b"\0\0\0\x18ftypisom".ljust(10_000_000, b"v")
WORDS = "Turnover 4711"
TABLE = xlsx(WORDS)
CHATS = {
    "streamed": "handlers.chat_completions.handler",
    "buffered": "support.lambda_handlers.buffered.handler",
}


@dataclass
class Cloud:
    """The functions of chats by their way of answering, and that of files, over one store."""

    chats: dict[str, Deployed]
    files: Deployed
    web: Web


@pytest.fixture(scope="module")
def cloud(
    moto_url: str, module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cloud]:
    session = boto3.Session(dynamo.FAKE.access_key, dynamo.FAKE.secret_key, region_name="us-east-1")
    session.resource("s3", endpoint_url=moto_url).create_bucket(Bucket=BUCKET)
    folder = tmp_path_factory.mktemp("cloud")
    aws = {
        "AWS_ENDPOINT_URL": moto_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": dynamo.FAKE.access_key,
        "AWS_SECRET_ACCESS_KEY": dynamo.FAKE.secret_key,
        "KIMI_GATEWAY_UPLOADS": BUCKET,
    }
    with ExitStack() as held:
        web = held.enter_context(Web(a_mp4=VIDEO, a_xlsx=TABLE))
        allowed = {"KIMI_GATEWAY_FETCH_ALLOWED": web.target}
        up = module_upstream.url
        files = held.enter_context(Deployed(folder, up, "handlers.files.handler", **aws))
        chats = {
            name: held.enter_context(Deployed(folder, up, handler, **allowed))
            for name, handler in CHATS.items()
        }
        yield Cloud(chats, files, web)


def asked(cloud: Cloud, how: str, form: str, key: str, part: dict[str, Any], stream: bool) -> None:
    answer = answered(
        cloud.chats[how].send("POST", PATHS[form], key, body(form, user(form, part), stream=stream))
    )
    assert answer.status == 200, answer.body
    assert b"error" not in answer.body[:20]


def uploads(upstream: ScriptedUpstream) -> list[Request]:
    return [each for each in upstream.requests if (each.method, each.path) == ("POST", "/v1/files")]


@pytest.mark.parametrize("how", CHATS)
def test_a_file_of_10_mb_by_address(cloud: Cloud, upstream: ScriptedUpstream, how: str) -> None:
    part = {"type": "video_url", "video_url": {"url": f"{cloud.web.url}/a.mp4"}}
    asked(cloud, how, "chat", cloud.files.key(), part, stream=how == "streamed")
    (sent,) = uploads(upstream)
    assert VIDEO in sent.raw
    (message,) = upstream.chats[-1].body["messages"]
    assert message["content"][0]["video_url"]["url"] == f"ms://{upstream.files.given[0]}"


@pytest.mark.parametrize("how", CHATS)
def test_a_file_of_10_mb_by_a_presigned_upload(cloud: Cloud, upstream: ScriptedUpstream, how: str) -> None:
    key = cloud.files.key()
    begun = json.loads(
        answered(cloud.files.send("POST", "/v1/files/uploads", key, {"bytes": len(VIDEO)})).body
    )
    assert httpx.put(begun["url"], content=VIDEO).status_code == 200
    completion = {"upload": begun["id"], "purpose": "video", "filename": "a.mp4"}
    made = answered(cloud.files.send("POST", "/v1/files", key, completion))
    assert (made.status, json.loads(made.body)["bytes"]) == (200, len(VIDEO)), made.body
    (kept,) = upstream.files.files.values()
    assert (kept.data == VIDEO, kept.purpose) == (True, "video")
    part = {"type": "video_url", "video_url": f"ms://{begun['id']}"}
    asked(cloud, how, "chat", key, part, stream=how == "streamed")
    (message,) = upstream.chats[-1].body["messages"]
    assert message["content"][0]["video_url"]["url"] == f"ms://{kept.id}"
    assert answered(cloud.files.send("DELETE", f"/v1/files/{begun['id']}", key)).status == 200
    assert upstream.files.files == {}


@pytest.mark.parametrize("how", CHATS)
@pytest.mark.parametrize("form", PATHS)
def test_a_table_in_bytes_and_by_address(
    cloud: Cloud, upstream: ScriptedUpstream, how: str, form: str
) -> None:
    key, url = cloud.files.key(), f"{cloud.web.url}/a.xlsx"
    data = base64.b64encode(TABLE).decode()
    if form == "messages":
        media_type = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
        sources: list[dict[str, Any]] = [
            {"type": "base64", "media_type": media_type, "data": data},
            {"type": "url", "url": url},
        ]
        parts = [{"type": "document", "source": source} for source in sources]
    else:
        files = [{"file_data": data, "filename": "a.xlsx"}, {"file_url": url}]
        parts = [
            {"type": "file", "file": file} if form == "chat" else {"type": "input_file", **file}
            for file in files
        ]
    for part, stream in zip(parts, (True, False), strict=True):
        asked(cloud, how, form, key, part, stream)
        document, _ = upstream.chats[-1].body["messages"]
        assert (document["role"], WORDS in document["content"]) == ("system", True)
    assert len(uploads(upstream)) == 1  # the second one has the same bytes
    assert upstream.files.files == {}
