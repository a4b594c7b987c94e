"""Files in the official SDKs, unchanged, on a socket: OpenAI's, newest and old, and Anthropic's newest.

Old Anthropic SDKs (0.25 of Python, 0.39 of Node) know no files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from clients.drivers import Driver
from support import sdks
from support.live import LiveGateway
from upstream import ScriptedUpstream
from upstream.batches import lines

OPENAI = {
    "node": ("node", "openai"), "old-node": ("node", "openai-old"), "old-python": ("python", "openai"),
}  # fmt: skip
DATA = b"Hello Kimi"


@pytest.fixture
def ours(gateway: LiveGateway) -> Iterator[sdks.openai.OpenAI]:
    client = sdks.openai.OpenAI(
        api_key=gateway.key(), base_url=f"{gateway.url}/v1", max_retries=0, _strict_response_validation=True
    )
    with client:
        yield client


@pytest.fixture(params=["", "/anthropic"])
def theirs(request: pytest.FixtureRequest, gateway: LiveGateway) -> Iterator[sdks.anthropic.Anthropic]:
    client = sdks.anthropic.Anthropic(
        api_key=gateway.key(), base_url=gateway.url + request.param, max_retries=0,
        _strict_response_validation=True,
    )  # fmt: skip
    with client:
        yield client


def test_openais_files_from_upload_to_deletion(ours: sdks.openai.OpenAI, upstream: ScriptedUpstream) -> None:
    made = ours.files.create(
        file=("notes.txt", DATA), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert (made.filename, made.bytes, made.purpose) == ("notes.txt", len(DATA), "user_data")
    assert ours.files.wait_for_processing(made.id, max_wait_seconds=1) == made
    more = [ours.files.create(file=(f"{n}.txt", DATA), purpose="assistants") for n in range(3)]
    assert [each.id for each in ours.files.list(limit=2)] == [
        each.id for each in sorted([made, *more], key=lambda each: each.id, reverse=True)
    ]
    assert list(ours.files.list(purpose="user_data", order="asc")) == [made]
    assert json.loads(ours.files.content(made.id).text)["content"] == DATA.decode()
    assert ours.files.delete(made.id).deleted
    with pytest.raises(sdks.openai.NotFoundError):
        ours.files.retrieve(made.id)
    with pytest.raises(sdks.openai.BadRequestError, match="Invalid purpose: evals"):
        ours.files.create(file=("a", DATA), purpose="evals")
    assert len(upstream.files.files) == 3


def test_openais_files_without_blocking(gateway: LiveGateway) -> None:
    import asyncio

    async def life() -> None:
        async with sdks.openai.AsyncOpenAI(api_key=gateway.key(), base_url=f"{gateway.url}/v1") as client:
            made = await client.files.create(file=("notes.txt", DATA * 50_000), purpose="user_data")
            assert (await client.files.wait_for_processing(made.id, max_wait_seconds=1)).status == "processed"
            assert [each.id async for each in client.files.list()] == [made.id]
            assert (await client.files.content(made.id)).text.count("Hello") == 50_000
            assert (await client.files.delete(made.id)).deleted

    asyncio.run(life())


@pytest.mark.parametrize("beta", [False, True])
def test_anthropics_files_from_upload_to_deletion(
    theirs: sdks.anthropic.Anthropic, upstream: ScriptedUpstream, beta: bool
) -> None:
    files: Any = theirs.beta.files if beta else theirs.files
    made = [files.upload(file=(f"{n}.pdf", b"%PDF-1.7", "application/pdf")) for n in range(3)]
    assert {(each.mime_type, each.size_bytes, each.downloadable) for each in made} == {
        ("application/pdf", 8, False)
    }
    assert files.retrieve_metadata(made[0].id) == made[0]
    newest = sorted((each.id for each in made), reverse=True)
    assert [each.id for each in files.list(limit=1)] == newest
    with pytest.raises(sdks.anthropic.BadRequestError) as refused:
        files.download(made[0].id)
    assert getattr(refused.value, "error_code", "file_not_downloadable") == "file_not_downloadable"
    assert files.delete(made[0].id).type == "file_deleted"
    with pytest.raises(sdks.anthropic.NotFoundError):
        files.retrieve_metadata(made[0].id)
    assert len(upstream.files.files) == 2


@pytest.mark.parametrize("name", OPENAI)
def test_openais_files_in_other_sdks(gateway: LiveGateway, upstream: ScriptedUpstream, name: str) -> None:
    with Driver(*OPENAI[name], f"{gateway.url}/v1") as sdk:
        outcome = sdk("files", key=gateway.key(), body={"purpose": "assistants"})
    assert not outcome.classes, outcome
    life = outcome.value
    assert life["made"]["status"] == life["waited"]["status"] == "processed"
    assert life["shown"]["id"] == life["made"]["id"]
    assert (life["made"]["filename"], life["made"]["bytes"]) == ("notes.txt", len(DATA))
    assert [each["id"] for each in life["listed"]] == [life["made"]["id"]]
    assert json.loads(life["text"])["content"] == DATA.decode()
    assert life["gone"]["deleted"] is True
    assert upstream.files.files == {}


def test_anthropics_files_in_node(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    with Driver("node", "@anthropic-ai/sdk", gateway.url) as sdk:
        outcome = sdk("files", key=gateway.key())
    assert not outcome.classes, outcome
    life = outcome.value
    assert life["shown"] == life["made"]
    assert [each["id"] for each in life["listed"]] == [life["made"]["id"]]
    assert (life["refused"], life["gone"]["type"]) == (400, "file_deleted")
    assert upstream.files.files == {}


def test_curl_with_the_file_first_is_served_too(gateway: LiveGateway) -> None:
    parts = {"file": ("notes.txt", DATA), "purpose": (None, "file-extract")}
    headers = {"authorization": f"Bearer {gateway.key()}"}
    assert httpx.post(f"{gateway.url}/v1/files", files=parts, headers=headers).status_code == 200


# Batches


@pytest.fixture(scope="module")
def batching(
    module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    with LiveGateway(tmp_path_factory.mktemp("batches"), module_upstream.url, batches=("*",)) as gateway:
        yield gateway


def test_openais_batches_from_creation_to_results(batching: LiveGateway, upstream: ScriptedUpstream) -> None:
    client = sdks.openai.OpenAI(
        api_key=batching.key(None), base_url=f"{batching.url}/v1", max_retries=0,
        _strict_response_validation=True,
    )  # fmt: skip
    with client:
        file = client.files.create(file=("in.jsonl", lines()), purpose="batch")
        made = [
            client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h",
                metadata={"number": str(number)},
            )
            for number in range(3)
        ]  # fmt: skip
        assert {each.status for each in made} == {"in_progress"}
        assert client.batches.retrieve(made[0].id) == made[0]
        assert [each.id for each in client.batches.list(limit=1)] == sorted(
            (b.id for b in made), reverse=True
        )
        assert client.batches.cancel(made[1].id).status == "cancelling"
        upstream.batches.run()
        done = client.batches.retrieve(made[2].id)
        assert done.status == "completed" and done.metadata == {"number": "2"}  # noqa: PT018
        assert done.output_file_id is not None
        rows = client.files.content(done.output_file_id).text.splitlines()
        assert [json.loads(row)["custom_id"] for row in rows] == ["a0", "a1", "a2"]


@pytest.mark.parametrize("name", OPENAI)
def test_openais_batches_in_other_sdks(batching: LiveGateway, upstream: ScriptedUpstream, name: str) -> None:
    with Driver(*OPENAI[name], f"{batching.url}/v1") as sdk:
        outcome = sdk("batches", key=batching.key(None), body={"lines": lines().decode()})
    assert not outcome.classes, outcome
    life = outcome.value
    assert life["made"]["status"] == "in_progress"
    assert life["shown"] == life["made"]
    assert [each["id"] for each in life["listed"]] == [life["made"]["id"]]
    assert life["cancelled"]["status"] == "cancelling"
